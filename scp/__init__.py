"""The DICOM receiver: a storage SCP on one port, with a thread for each connection.

One association, from the TCP accept to its end::

    thread "accept" (one per receiver)
      accept()                         Server._accept
                                         Admission.admit          may close the oldest pending
                                                                  connection; then the thread below
    thread of the connection
      Server._serve
        Server._receive_request
          Admission.allows             the peer's address
          TLS handshake                if configured
          read_request                 the whole A-ASSOCIATE-RQ
          refused: A-ABORT, Connection.close, Receiver._on_refused
        Receiver._serve
          association_request.decode   whatever is odd about it and need not be understood is noted
          Admission.associate          may close one that stores nothing, or reject
          Acceptor.accept              AE titles, presentation contexts
          A-ASSOCIATE-AC or -RJ        PduStream.send
          Association.serve
            per PDU                    PduStream.read             size and time; else abort
            per message                a C-ECHO is answered
              C-STORE                  Storage.receive            disk, backlog, the announced UIDs
                per fragment           Reception.write            into the staging file
                at the end             Reception.finish           header, fsync; then the status
            A-RELEASE, A-ABORT, a closed socket or a limit end it
        Admission.remove, and the socket is closed

``Server.stop`` ends the "accept" thread and shuts down every connection; reading threads then find
their sockets closed and end in the same way.
"""
