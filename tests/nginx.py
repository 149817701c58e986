"""nginx as a reverse proxy, with its defaults except where a test says otherwise."""

import socket
from pathlib import Path

from tests.certificates import self_signed
from tests.peers import Peer, free_port

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 100m;
  server {{
    listen 127.0.0.1:{port}{tls};
    {certificate}
    {locations}
  }}
}}
"""


class Nginx(Peer):
    """``locations``: the server's `location` blocks. With ``tls`` it has a certificate of its own.

    The temporary folders are its own, because the tests may run as another user than Debian's.
    """

    def __init__(self, folder: Path, locations: str, tls: bool = False) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
        certificate = ""
        if tls:
            pem, key = self_signed(folder, "127.0.0.1")
            certificate = f"ssl_certificate {pem}; ssl_certificate_key {key};"
        configuration = folder / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                port=self.port,
                tls=" ssl" if tls else "",
                certificate=certificate,
                locations=locations,
            )
        )
        self.root = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        # It drops root for nobody, who could not enter a folder of pytest's.
        command = [
            "/usr/sbin/nginx",
            "-p",
            str(folder),
            "-c",
            str(configuration),
            "-g",
            "user root;",
        ]
        super().__init__(command, self._answers, folder / "nginx.log")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
