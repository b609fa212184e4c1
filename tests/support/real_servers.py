"""Real servers from Debian's packages, each on loopback ports and in a directory of its own.

    with port_block() as port, Redis(port) as server:
        server.start()
        server.release()         # until then it says that it is still starting, if it can be held there
        assert server.is_usable()

Each runs as nobody where its tests run as root, is killed with them if it can be, and proved to be gone when the block
ends. What `urls` holds of a user and a password is known to no server: nobody may send it.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import http.client
import os
import select
import shutil
import signal
import smtplib
import socket
import ssl
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar, Self

from tests.support.app import CEILING_S

HOST = "127.0.0.1"
USER, PASSWORD = "webapp-7d1f", "Never-Sent-9c2e"  # of the URLs
ADMIN, ADMIN_PASSWORD = "admin", "of-the-tests"  # of our own clients
SECRETS = [secret for plain in (USER, PASSWORD) for secret in (plain, base64.b64encode(plain.encode()).decode()[:-4])]
SECRETS.append(base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_IS_ROOT = os.getuid() == 0


def find(program: str) -> str | None:
    """Return the path of a program, also of one that only root usually has on its PATH."""
    found = shutil.which(program, path=_PATH)
    if found is None:  # Debian has one directory for each major version
        found = max(glob.glob(f"/usr/lib/postgresql/*/bin/{program}"), default=None)
    return found


class Server:
    """One server, as the packages have it."""

    name: ClassVar[str]
    packages: ClassVar[dict[str, str]]  # the package of each program that is run
    url_kinds: ClassVar[tuple[str, ...]] = ("plain",)  # keys of `urls`: "plain", and "tls" if it speaks that
    needs_root: ClassVar[bool] = False
    stop_signal: ClassVar[int] = signal.SIGTERM
    speaks_first: ClassVar[bool] = False
    can_be_held: ClassVar[bool] = False  # before `release` it listens, and answers that it is still starting
    logs_logins: ClassVar[bool] = False  # a login that fails leaves the user's name in `logs()`

    def __init__(self, port: int) -> None:
        self.port, self.tls_port = port, port + 1
        self.directory = Path(tempfile.mkdtemp(prefix=f"procman-{self.name}-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.log_directory = self.directory / "log"
        self.log_directory.mkdir(mode=0o777)
        self.log_directory.chmod(0o777)
        if _IS_ROOT and not self.needs_root:
            shutil.chown(self.directory, "nobody", "nogroup")
        self._processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def lacking(cls) -> str:
        """Tell why it cannot run here; "" if it can."""
        packages = [package for program, package in cls.packages.items() if find(program) is None]
        if packages:
            return f"{cls.name}: apt-get install {' '.join(dict.fromkeys(packages))}"
        if cls.needs_root and not _IS_ROOT:
            return f"{cls.name} (package {next(iter(cls.packages.values()))}) starts as root only"
        return ""

    @property
    def urls(self) -> dict[str, str]:
        """Return the values that a variable may have, by kind."""
        raise NotImplementedError

    # --- its life ---

    def __enter__(self) -> Self:
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        left = self.close()
        if error is None:
            assert left == {}, f"{self.name} left behind"

    def prepare(self) -> None:
        """Make the files it needs."""

    def start(self) -> None:
        """Start it, without waiting for it."""
        raise NotImplementedError

    def release(self) -> None:
        """Let it go on to the end of its start."""

    def is_usable(self) -> bool:
        """Tell whether a real client can work with it now; tried once."""
        raise NotImplementedError

    def log_in(self) -> None:
        """Try to log in as the URLs say, with a real client: it must not work."""
        raise NotImplementedError

    def check(self) -> None:
        """Fail if it has ended."""
        for process in self._processes:
            assert process.poll() is None, f"{self.name} ended with {process.returncode}:\n{self.logs()[-8000:]}"

    def logs(self) -> str:
        """Return all that it logged so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.log_directory.iterdir()))

    def close(self) -> dict[int, str]:
        """End it, wait until nobody of it is there, and return whom it left: pid and command line."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CEILING_S)
        deadline = time.monotonic() + CEILING_S / 3
        while (left := self.alive()) and time.monotonic() < deadline:
            for pid in left:
                _wait_for_end(pid, deadline - time.monotonic())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(CEILING_S)
        shutil.rmtree(self.directory, ignore_errors=True)
        return left

    def alive(self) -> dict[int, str]:
        """Return pid and command line of each process of it: by session, directory or environment."""
        found = {}
        sessions = {process.pid for process in self._processes}
        mark = os.fsencode(self.directory)
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                cwd = os.fsencode(os.readlink(entry / "cwd"))
                command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:  # gone, a zombie, or somebody else's
                continue
            is_ours = int(session) in sessions or any(mark in text for text in (cwd, command, environment))
            if is_ours and state != "Z":
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    # --- for the servers below ---

    def _environment(self) -> dict[str, str]:
        return {"PATH": _PATH, "HOME": str(self.directory), "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def _argv(self, program: str, *arguments: object) -> list[str]:
        found = find(program)
        assert found is not None, program
        rights = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        drop = rights if _IS_ROOT and not self.needs_root else []
        return ["setpriv", "--pdeathsig", "KILL", *drop, found, *map(str, arguments)]

    def _spawn(self, program: str, *arguments: object, **environment: str) -> None:
        with open(self.log_directory / f"{Path(program).name}.out", "ab") as log:
            process = subprocess.Popen(
                self._argv(program, *arguments),
                cwd=self.directory,
                env=self._environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)

    def _try(self, program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            self._argv(program, *arguments),
            cwd=self.directory,
            env=self._environment() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CEILING_S,
            check=False,
        )

    def _run(self, program: str, *arguments: object, **environment: str) -> str:
        """Run a program that has to end well."""
        done = self._try(program, *arguments, **environment)
        assert done.returncode == 0, f"{done.args} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if _IS_ROOT and not self.needs_root:
            shutil.chown(path, "nobody", "nogroup")
        return path

    def _make_certificate(self) -> None:
        """Make tls.crt and tls.key; nobody has a reason to trust it."""
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        where = ("-keyout", "tls.key", "-out", "tls.crt")
        self._run("openssl", "req", "-x509", *kind, "-nodes", "-days", "2", "-subj", "/CN=elsewhere.test", *where)


def _wait_for_end(pid: int, limit_s: float) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        select.select([fd], [], [], max(0.0, limit_s))
    finally:
        os.close(fd)


def _exchange(port: int, say: bytes, wanted: bytes) -> bool:
    """Tell whether a server answers `say` with something that begins with `wanted`."""
    try:
        with socket.create_connection((HOST, port), timeout=CEILING_S) as connection:
            connection.sendall(say)
            answer = b""
            while len(answer) < len(wanted) and (chunk := connection.recv(4096)):
                answer += chunk
    except OSError:
        return False
    return answer.startswith(wanted)


class PostgreSQL(Server):
    """Starts with a recovery from an archive whose first file does not come before `release`: so long it says 57P03."""

    name = "postgresql"
    url_kinds = ("plain", "tls")
    packages: ClassVar = {"postgres": "postgresql", "initdb": "postgresql", "psql": "postgresql", "openssl": "openssl"}
    stop_signal = signal.SIGINT  # "fast": do not wait for clients
    can_be_held = True
    logs_logins = True

    @property
    def urls(self) -> dict[str, str]:
        url = f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.port}/shop"
        return {"plain": url, "tls": f"{url}?sslmode=require"}

    def prepare(self) -> None:
        self._make_certificate()
        self._write("password", ADMIN_PASSWORD)
        access = ("-U", ADMIN, "--pwfile", "password", "-A", "scram-sha-256")
        self._run("initdb", "-D", "data", *access, "--no-sync", "-N", "--no-locale", "-E", "UTF8")
        gate, is_open = self.directory / "gate", self.directory / "open"
        os.mkfifo(gate)
        gate.chmod(0o666)
        # Both ends, so that no open blocks, and what `release` writes stays there for who is late.
        self._gate_fd = os.open(gate, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(self.directory / "data/postgresql.conf", "a") as file:
            file.write(
                f"listen_addresses = '{HOST}'\nport = {self.port}\nunix_socket_directories = '{self.directory}'\n"
                f"ssl = on\nssl_cert_file = '{self.directory}/tls.crt'\nssl_key_file = '{self.directory}/tls.key'\n"
                "fsync = off\nshared_buffers = 1MB\nlog_connections = on\nlog_disconnections = on\nhot_standby = off\n"
                f"restore_command = 'test -e {is_open} || read x <{gate}; exit 1'\n"
            )
        self._write("data/recovery.signal", "")

    def start(self) -> None:
        self._spawn("postgres", "-D", "data")

    def release(self) -> None:
        self._write("open", "")
        os.write(self._gate_fd, b"go\n")

    def close(self) -> dict[int, str]:
        if hasattr(self, "_gate_fd"):
            self.release()  # or its end would wait for the archive
            os.close(self._gate_fd)
            del self._gate_fd
        return super().close()

    def _psql(self, user: str, password: str) -> subprocess.CompletedProcess[str]:
        where = f"host={HOST} port={self.port} user={user} dbname=postgres"
        return self._try("psql", "-X", "-A", "-t", "-c", "select 1", where, PGPASSWORD=password)

    def is_usable(self) -> bool:
        pinged = self._try("pg_isready", "-h", HOST, "-p", self.port)
        return pinged.returncode == 0 and self._psql(ADMIN, ADMIN_PASSWORD).returncode == 0

    def log_in(self) -> None:
        assert "password authentication failed" in self._psql(USER, PASSWORD).stderr


class MariaDB(Server):
    name = "mariadb"
    packages: ClassVar = {
        "mariadbd": "mariadb-server-core",
        "mariadb-install-db": "mariadb-server-core",
        "mariadb": "mariadb-client-core",
    }
    speaks_first = True
    logs_logins = True

    @property
    def urls(self) -> dict[str, str]:
        return {"plain": f"mysql2://{USER}:{PASSWORD}@{HOST}:{self.port}/shop?pool=5"}

    def prepare(self) -> None:
        data = f"--datadir={self.directory}/data"
        options = ("--auth-root-authentication-method=normal", "--skip-test-db")
        self._run("mariadb-install-db", "--no-defaults", data, *options)

    def start(self) -> None:
        here = self.directory
        self._spawn(
            *("mariadbd", "--no-defaults", f"--datadir={here}/data", f"--tmpdir={here}", f"--pid-file={here}/pid"),
            *(f"--bind-address={HOST}", f"--port={self.port}", f"--socket={here}/socket", "--skip-name-resolve"),
            *(f"--log-error={here}/log/error.log", "--log-warnings=4"),
            *("--general-log", f"--general-log-file={here}/log/general.log"),
            *("--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0"),
        )

    def _client(self, user: str, *password: str) -> subprocess.CompletedProcess[str]:
        where = ("--protocol=tcp", "-h", HOST, "-P", self.port)
        return self._try("mariadb", "--no-defaults", *where, "-u", user, *password, "-e", "select 1")

    def is_usable(self) -> bool:
        return self._client("root").returncode == 0

    def log_in(self) -> None:
        assert "Access denied" in self._client(USER, f"--password={PASSWORD}").stderr


class Redis(Server):
    """Starts with the loading of a file of many keys, so slowly that it does not end before `release`."""

    name = "redis"
    url_kinds = ("plain", "tls")
    packages: ClassVar = {"redis-server": "redis-server", "redis-cli": "redis-server", "openssl": "openssl"}
    can_be_held = True
    logs_logins = True
    KEY_COUNT = 100_000
    KEY_DELAY_US = 1000

    @property
    def urls(self) -> dict[str, str]:
        rest = f"{USER}:{PASSWORD}@{HOST}"
        return {"plain": f"redis://{rest}:{self.port}/1", "tls": f"rediss://{rest}:{self.tls_port}/1"}

    def prepare(self) -> None:
        self._make_certificate()
        self._spawn("redis-server", *self._options("--save", "", "--enable-debug-command", "yes"))
        deadline = time.monotonic() + CEILING_S
        while not self.is_usable():
            self.check()
            assert time.monotonic() < deadline
        self._cli("debug", "populate", str(self.KEY_COUNT))
        self._cli("save")
        self._cli("config", "resetstat")
        process = self._processes.pop()
        process.terminate()
        process.wait(CEILING_S)

    def _options(self, *options: str) -> list[str]:
        tls = ["--tls-port", self.tls_port, "--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key"]
        tls += ["--tls-ca-cert-file", "tls.crt", "--tls-auth-clients", "no"]
        return [*map(str, ["--port", self.port, "--bind", HOST, *tls]), *options]

    def start(self) -> None:
        slow = ("--key-load-delay", str(self.KEY_DELAY_US), "--loading-process-events-interval-bytes", "1024")
        self._spawn("redis-server", *self._options("--save", "", *slow))

    def release(self) -> None:
        self._cli("config", "set", "key-load-delay", "0")

    def demand_password(self, password: str) -> None:
        self._cli("config", "set", "requirepass", password)

    def take_back_password(self, password: str) -> None:
        self._cli("--pass", password, "config", "set", "requirepass", "")

    def _cli(self, *arguments: str) -> str:
        return self._try("redis-cli", "-h", HOST, "-p", self.port, *arguments).stdout

    def is_usable(self) -> bool:
        return self._cli("ping") == "PONG\n"

    def log_in(self) -> None:
        where = ("-h", HOST, "-p", self.port)
        assert "WRONGPASS" in self._try("redis-cli", *where, "--user", USER, "--pass", PASSWORD, "ping").stderr

    def logs(self) -> str:
        return super().logs() + self._cli("acl", "log")


class Memcached(Server):
    name = "memcached"
    url_kinds = ("plain", "with a user")  # who logs in speaks the older protocol, in bytes
    packages: ClassVar = {"memcached": "memcached"}
    stop_signal = signal.SIGKILL  # or it would take a second

    @property
    def urls(self) -> dict[str, str]:
        where = f"{HOST}:{self.port}"
        return {"plain": f"memcached://{where}", "with a user": f"memcached://{USER}:{PASSWORD}@{where}"}

    def start(self) -> None:
        self._spawn("memcached", "-l", HOST, "-p", self.port, "-U", 0, "-m", 8, "-t", 1, "-vv")

    def is_usable(self) -> bool:
        return _exchange(self.port, b"set procman 0 0 1\r\n1\r\n", b"STORED\r\n")


class RabbitMQ(Server):
    name = "rabbitmq"
    url_kinds = ("plain", "tls")
    packages: ClassVar = {"rabbitmq-server": "rabbitmq-server", "epmd": "rabbitmq-server", "openssl": "openssl"}
    stop_signal = signal.SIGKILL  # it takes its time to leave, and has nothing to save
    logs_logins = True

    @property
    def urls(self) -> dict[str, str]:
        rest = f"{USER}:{PASSWORD}@{HOST}"
        return {"plain": f"amqp://{rest}:{self.port}/shop", "tls": f"amqps://{rest}:{self.tls_port}/shop"}

    def prepare(self) -> None:
        self._make_certificate()
        self._write("enabled_plugins", "[].\n")
        self._write(
            "rabbitmq.conf",
            f"listeners.tcp.1 = {HOST}:{self.port}\nlisteners.ssl.1 = {HOST}:{self.tls_port}\n"
            f"ssl_options.certfile = {self.directory}/tls.crt\nssl_options.keyfile = {self.directory}/tls.key\n"
            f"ssl_options.cacertfile = {self.directory}/tls.crt\n"
            f"default_user = {ADMIN}\ndefault_pass = {ADMIN_PASSWORD}\n"
            "log.file = false\nlog.console = true\nlog.console.level = debug\n",
        )

    def start(self) -> None:
        # The names of nodes are kept by a server of their own. Started by Erlang it would stay.
        names = {"ERL_EPMD_PORT": str(self.port + 3), "ERL_EPMD_ADDRESS": HOST}
        self._spawn("epmd", **names)
        here = self.directory
        self._spawn(
            "/usr/lib/rabbitmq/bin/rabbitmq-server",
            **names,
            RABBITMQ_NODENAME=f"procman{self.port}@localhost",
            RABBITMQ_DIST_PORT=str(self.port + 2),
            RABBITMQ_CONFIG_FILE=f"{here}/rabbitmq.conf",
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{here}/enabled_plugins",
            RABBITMQ_MNESIA_BASE=f"{here}/data",
            RABBITMQ_LOG_BASE=f"{here}/log",
            RABBITMQ_PID_FILE=f"{here}/pid",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
            ERL_CRASH_DUMP_SECONDS="0",
            RUNNING_UNDER_SYSTEMD="1",  # then its script becomes the server, instead of waiting for it
        )

    def is_usable(self) -> bool:
        return self._answer_to_login(ADMIN, ADMIN_PASSWORD)[:2] == [(10, 10), (10, 30)]  # start, tune

    def log_in(self) -> None:
        assert self._answer_to_login(USER, PASSWORD) == [(10, 10), (10, 50)]  # start, close

    def _answer_to_login(self, user: str, password: str) -> list[tuple[int, int]]:
        """Return class and method of the first frames that the server sends to a client that logs in."""
        # The peer that is told so gets a close instead of a bare end of the connection.
        capabilities = _long(_short(b"authentication_failure_close") + b"t\x01")
        properties = _long(_short(b"capabilities") + b"F" + capabilities)
        response = _long(b"\0" + user.encode() + b"\0" + password.encode())
        start_ok = struct.pack(">HH", 10, 11) + properties + _short(b"PLAIN") + response + _short(b"en_US")
        methods = []
        try:
            with socket.create_connection((HOST, self.port), timeout=CEILING_S) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                stream = connection.makefile("rb")
                for reply in (b"\x01\0\0" + _long(start_ok) + b"\xce", b""):
                    _, _, size = struct.unpack(">BHI", stream.read(7))
                    methods.append(struct.unpack(">HH", stream.read(size + 1)[:4]))
                    connection.sendall(reply)
        except (OSError, struct.error):
            pass
        return methods


def _short(text: bytes) -> bytes:
    return struct.pack(">B", len(text)) + text


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


class Beanstalkd(Server):
    name = "beanstalkd"
    packages: ClassVar = {"beanstalkd": "beanstalkd"}

    @property
    def urls(self) -> dict[str, str]:
        return {"plain": f"beanstalkd://{USER}:{PASSWORD}@{HOST}:{self.port}"}

    def start(self) -> None:
        self._spawn("beanstalkd", "-l", HOST, "-p", self.port, "-V")

    def is_usable(self) -> bool:
        return _exchange(self.port, b"put 0 0 60 1\r\n1\r\n", b"INSERTED ")


class Postfix(Server):
    name = "postfix"
    url_kinds = ("plain", "tls")
    packages: ClassVar = {"postfix": "postfix", "openssl": "openssl"}
    needs_root = True
    speaks_first = True

    @property
    def urls(self) -> dict[str, str]:
        rest = f"{USER}:{PASSWORD}@{HOST}"
        return {"plain": f"smtp://{rest}:{self.port}", "tls": f"smtps://{rest}:{self.tls_port}"}

    def prepare(self) -> None:
        self._make_certificate()
        here = self.directory
        (here / "queue").mkdir()
        (here / "data").mkdir()
        shutil.chown(here / "data", "postfix")
        self._write(
            "etc/main.cf",
            f"compatibility_level = 3.6\nqueue_directory = {here}/queue\ndata_directory = {here}/data\n"
            "command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n"
            "shlib_directory = /usr/lib/postfix\nmeta_directory = /etc/postfix\nmail_owner = postfix\n"
            f"setgid_group = postdrop\nmaillog_file_prefixes = {here}\nmaillog_file = {here}/log/mail.log\n"
            "inet_protocols = ipv4\ninet_interfaces = 127.0.0.1\nmyhostname = elsewhere.test\nmydestination =\n"
            "alias_maps =\nlocal_recipient_maps =\n"
            "smtpd_tls_security_level = may\n"
            f"smtpd_tls_cert_file = {here}/tls.crt\nsmtpd_tls_key_file = {here}/tls.key\n",
        )
        self._write(
            "etc/master.cf",
            f"{HOST}:{self.port} inet n - n - - smtpd -v\n"
            f"{HOST}:{self.tls_port} inet n - n - - smtpd -v -o smtpd_tls_wrappermode=yes\n"
            "postlog unix-dgram n - n - 1 postlogd\nanvil unix - - n - 1 anvil\n"
            "rewrite unix - - n - - trivial-rewrite\ncleanup unix n - n - 0 cleanup\n"
            "proxymap unix - - n - - proxymap\ntlsmgr unix - - n 1000? 1 tlsmgr\n",
        )
        self._run("postfix", "-c", f"{here}/etc", "check")

    def start(self) -> None:
        # Not by its script, which nobody can end: `master` would leave for a session of its own.
        self._spawn("/usr/lib/postfix/sbin/master", "-c", f"{self.directory}/etc", "-d")

    def is_usable(self) -> bool:
        try:
            with smtplib.SMTP(HOST, self.port, timeout=CEILING_S) as client:
                return client.ehlo()[0] == 250 and client.noop()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False


class Nginx(Server):
    """Answers with 200; on two further ports with 503 and with 401."""

    name = "nginx"
    url_kinds = ("plain", "tls")
    packages: ClassVar = {"nginx": "nginx", "openssl": "openssl"}
    stop_signal = signal.SIGINT
    logs_logins = True

    @property
    def urls(self) -> dict[str, str]:
        rest = f"{USER}:{PASSWORD}@{HOST}"
        query = f"X-Amz-Credential={USER}&X-Amz-Signature={PASSWORD}"
        return {
            "plain": f"http://{rest}:{self.port}/bucket?{query}",
            "tls": f"https://{rest}:{self.tls_port}/bucket?{query}",
        }

    @property
    def closed_port(self) -> int:
        return self.port + 2

    @property
    def private_port(self) -> int:
        return self.port + 3

    def prepare(self) -> None:
        self._make_certificate()
        here = self.directory
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        directories = "".join(f"{kind}_temp_path {here}/{kind};\n" for kind in kinds)
        self._write(
            "nginx.conf",
            f"daemon off;\nworker_processes 1;\npid {here}/pid;\nevents {{}}\nhttp {{\n{directories}"
            "log_format all '\"$request\" $status $remote_user $http_authorization';\n"
            f"access_log {here}/log/access.log all;\nserver {{\nlisten {HOST}:{self.port};\n"
            f"listen {HOST}:{self.tls_port} ssl;\nssl_certificate tls.crt;\nssl_certificate_key tls.key;\n"
            "location / { return 200 'here\\n'; }\n}\n"
            f"server {{ listen {HOST}:{self.closed_port}; return 503; }}\n"
            f"server {{ listen {HOST}:{self.private_port}; return 401; }}\n}}\n",
        )

    def start(self) -> None:
        here = self.directory
        log = f"{here}/log/error.log"
        self._spawn("nginx", "-p", here, "-c", f"{here}/nginx.conf", "-e", log, "-g", f"error_log {log} info;")

    def _status(self, **headers: str) -> int:
        client = http.client.HTTPConnection(HOST, self.port, timeout=CEILING_S)
        try:
            client.request("GET", "/", headers=headers)
            return client.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            client.close()

    def is_usable(self) -> bool:
        return self._status() == 200

    def log_in(self) -> None:
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        assert self._status(Authorization=f"Basic {word}") == 200  # it asks nobody, but keeps what came


SERVERS: tuple[type[Server], ...] = (RabbitMQ, MariaDB, PostgreSQL, Redis, Postfix, Nginx, Memcached, Beanstalkd)


def speaks_tls(port: int) -> bool:
    """Tell whether a TLS handshake works, whatever the certificate says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((HOST, port), timeout=CEILING_S) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False
