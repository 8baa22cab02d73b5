"""Certificates of the run's own authorities, made by openssl."""

import os
import subprocess

from e2e.servers import tool


class Authority:
    """Vouches for whoever asks. Its certificate is `path`."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.path, self.key = world.path(f"{name}.crt"), world.path(f"{name}.key")
        self._serial = 0
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.path,
        )

    def issue(self, file, names, serial=None):
        """Writes FILE.crt and FILE.key for DNS names and addresses; each is there whole or not at all."""
        self._serial += 1
        serial = serial or self._serial
        alternatives = ",".join(("IP:" if name[0].isdigit() else "DNS:") + name for name in names)
        request, extensions = self.world.path("issue.csr"), self.world.path("issue.ext")
        self.world.write("issue.ext", f"subjectAltName={alternatives}\n")
        cert, key = self.world.path(f"{file}.crt"), self.world.path(f"{file}.key")
        openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={names[0]}", "-keyout", f"{key}.new", "-out", request,
        )
        openssl(
            "x509", "-req", "-in", request, "-CA", self.path, "-CAkey", self.key, "-days", "1",
            "-set_serial", str(serial), "-extfile", extensions, "-out", f"{cert}.new",
        )
        os.replace(f"{key}.new", key)
        os.replace(f"{cert}.new", cert)
        return cert, key


def openssl(*arguments, **options):
    done = subprocess.run(
        [tool("openssl"), *arguments], capture_output=True, text=True, timeout=30, check=False,
        stdin=subprocess.DEVNULL, **options,
    )
    if done.returncode:
        raise ValueError(f"openssl {arguments[0]}: {done.stderr[-500:]}")
    return done.stdout
