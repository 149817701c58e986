"""The DICOM receiver: a storage SCP on one port, built on pynetdicom.

One association, from the TCP accept to its end: pynetdicom on the left, our functions, and the
order in which they are called, on the right::

    thread "accept" (one per receiver)
      accept()                      -> Server.process_request
                                         Admission.admit          may close the oldest pending
                                                                  connection; then the thread below
    thread of the connection (ours)
                                       Server._serve
                                         Server._receive_request
                                           Admission.allows       the peer's address
                                           TLS handshake          if configured
                                           limits.read_request    the whole A-ASSOCIATE-RQ
                                           refused: A-ABORT, Connection.close, Receiver._on_refused
                                         AssociationHandler.handle
      Association is created        ->     limits.apply_limits    our socket, states and messages
                                         Association.start, then join until it has ended

    thread "AcceptorThread@..." (pynetdicom's Association.run_reactor)
      starts the DUL thread, takes the A-ASSOCIATE-RQ from it
      EVT_REQUESTED                 -> Receiver._on_request       Admission.associate: may close an
                                                                  idle association, or reject
      ACSE checks the AE titles
      EVT_REJECTED                  -> Receiver._on_rejected      A-ASSOCIATE-RJ was sent
      A-ASSOCIATE-AC
      per message                   -> LimitedMessages.get_msg
        C-ECHO: pynetdicom answers
        C-STORE: EVT_C_STORE        -> Receiver._on_store         db.ingest.ingest, then the status
      A-RELEASE, A-ABORT, a closed socket or the network timeout ends the loop

    thread of pynetdicom's DULServiceProvider (one per association)
      polls                         -> LimitedSocket.ready
      reads a PDU                   -> LimitedSocket.recv         size and time; else abort()
      every event of PS3.8 9.2      -> AbortingStateMachine.do_action
      P-DATA                        -> LimitedMessages.receive_primitive
                                         Spool.write              the dataset, as it arrives
      sends a PDU                   -> LimitedSocket.send

    thread of the connection again, after join
                                       Server._log_abnormal_end   what was neither released nor
                                                                  rejected nor logged before
                                       Admission.remove, and the socket is closed

``Server.stop`` ends the "accept" thread and shuts down every connection; reading threads then find
their sockets closed and end in the same way.
"""
