"""Serves an embedded ClickHouse (chdb) as a server's HTTP interface does: one statement at a time, in their order.

Statements come as the body, with the rows of an INSERT after them, settings as parameters, and statements with external
tables as a form. The port is told on standard output; once standard input ends, so does this.
"""

import argparse
import collections
import email.parser
import email.policy
import http.server
import os
import re
import shutil
import ssl
import sys
import tempfile
import threading
import urllib.parse

NOT_SETTINGS = {"query", "query_id", "database", "default_format", "user", "password", "wait_end_of_query", "session_id"}
# A server reads a statement up to its format, and rows after the end of that line.
INSERT = re.compile(rb"^\s*(INSERT\s+INTO\s.*?)\s+FORMAT\s+(\w+)[ \t]*\n", re.IGNORECASE | re.DOTALL)
LONGEST_FIELD = 128 << 10
CODE = re.compile(r"Code: (\d+)")
STATUS = {60: 404, 81: 404, 497: 403, 516: 403, 202: 429}


class Failed(Exception):
    def __init__(self, text):
        super().__init__(text)
        found = CODE.search(text)
        self.code = int(found.group(1)) if found else 1002
        self.text = text[found.start():] if found else text


class Turns:
    """Lets one in at a time, in the order in which they came."""

    def __init__(self):
        self.lock, self.waiting, self.is_taken = threading.Lock(), collections.deque(), False

    def __enter__(self):
        with self.lock:
            if not self.is_taken:
                self.is_taken = True
                return
            turn = threading.Event()
            self.waiting.append(turn)
        turn.wait()

    def __exit__(self, *_):
        with self.lock:
            if self.waiting:
                self.waiting.popleft().set()
            else:
                self.is_taken = False


class Engine:
    def __init__(self, directory):
        import chdb

        self.connection = chdb.connect(os.path.join(directory, "data"))
        self.files = os.path.join(directory, "files")
        os.mkdir(self.files)
        self.settings, self.turns = {}, Turns()

    def one(self, sql, form="TabSeparated"):
        try:
            return self.connection.query(sql, form).bytes()
        except Exception as error:
            raise Failed(str(error)) from error

    def keep(self, name, content):
        path = os.path.join(self.files, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def apply(self, settings):
        for name in self.settings.keys() - settings.keys():
            self.one(f"SET {name} = DEFAULT")
            del self.settings[name]
        for name, value in settings.items():
            if self.settings.get(name) != value:
                escaped = value.replace("\\", "\\\\").replace("'", "\\'")
                self.one(f"SET {name} = '{escaped}'")
                self.settings[name] = value

    def run(self, body, tables, parameters):
        """The answer to a query that is followed by its rows, or that has tables of its own."""
        with self.turns:
            own = {f"{name}_{what}" for name in tables for what in ("format", "structure", "types")}
            self.apply({name: value for name, value in parameters.items() if name not in NOT_SETTINGS | own})
            if re.match(rb"\s*KILL\s+QUERY", body, re.IGNORECASE):
                return b""
            insert = None if tables else INSERT.match(body)
            if insert:
                path = self.keep("rows", body[insert.end():])
                return self.one(f"{insert.group(1).decode()} FROM INFILE '{path}' FORMAT {insert.group(2).decode()}")
            try:
                for name, content in tables.items():
                    path = self.keep(name, content)
                    structure = parameters[f"{name}_structure"].replace("\\", "\\\\").replace("'", "\\'")
                    form = parameters.get(f"{name}_format", "TabSeparated")
                    self.one(f"CREATE TEMPORARY TABLE {name} ENGINE = Memory AS SELECT * FROM file('{path}', '{form}', '{structure}')")
                return self.one(body.decode(), parameters.get("default_format", "TabSeparated"))
            finally:
                for name in tables:
                    self.one(f"DROP TEMPORARY TABLE IF EXISTS {name}")


def parts_of(content_type, body):
    """The fields of a multipart body, of which those with one name are one, and its files by their names."""
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields, files = {}, {}
    for part in message.iter_parts():
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        if part.get_filename() is not None:
            files[name] = content
            continue
        if len(content) > LONGEST_FIELD:
            raise Failed("Code: 1000. DB::Exception: Field value too long")
        fields[name] = fields.get(name, b"") + content
    return fields, files


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer are two writes: the second must not wait until the first is acknowledged.
    disable_nagle_algorithm = True
    engine = None
    login = None
    counting, now, most = threading.Lock(), 0, 0

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/ping":
            return self.answer(200, b"Ok.\n")
        if path == "/most_at_a_time":
            return self.answer(200, str(Handler.most).encode())
        self.do_POST()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            # Whoever asked is gone in the middle of it: a server does not run half of a statement.
            self.close_connection = True
            return
        url = urllib.parse.urlsplit(self.path).query
        parameters = dict(urllib.parse.parse_qsl(url, keep_blank_values=True))
        try:
            self.expect_login(parameters)
            content_type, tables = self.headers.get("Content-Type", ""), {}
            if content_type.startswith("multipart/form-data"):
                fields, tables = parts_of(content_type, body)
                body = fields.pop("query")
                parameters.update({name: content.decode() for name, content in fields.items()})
            self.answer(200, self.counted(body, tables, parameters), parameters.get("query_id"))
        except Failed as failed:
            self.answer(STATUS.get(failed.code, 500), failed.text.encode() + b"\n", parameters.get("query_id"), failed.code)

    def counted(self, *query):
        with Handler.counting:
            Handler.now += 1
            Handler.most = max(Handler.most, Handler.now)
        try:
            return self.engine.run(*query)
        finally:
            with Handler.counting:
                Handler.now -= 1

    def expect_login(self, parameters):
        user = self.headers.get("X-ClickHouse-User") or parameters.get("user") or "default"
        password = self.headers.get("X-ClickHouse-Key") or parameters.get("password") or ""
        if (user, password) != self.login:
            raise Failed(f"Code: 516. DB::Exception: {user}: Authentication failed. (AUTHENTICATION_FAILED)")

    def answer(self, status, body, query_id=None, code=None):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Server-Display-Name", "chdb")
        if query_id:
            self.send_header("X-ClickHouse-Query-Id", query_id)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        # Whoever asked is gone.
        pass


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--user", default="default")
    arguments.add_argument("--password", default="")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--directory")
    arguments.add_argument("--certificate")
    arguments.add_argument("--key")
    given = arguments.parse_args()
    directory = given.directory or tempfile.mkdtemp(prefix="etl-clickhouse-")
    os.makedirs(directory, exist_ok=True)
    Handler.login = (given.user, given.password)
    Handler.engine = Engine(directory)
    server = Server(("127.0.0.1", given.port), Handler)
    if given.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate, given.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)

    def end_with_whoever_started_this():
        sys.stdin.buffer.read()
        if not given.directory:
            shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=end_with_whoever_started_this, daemon=True).start()
    print(server.server_port, flush=True)
    server.serve_forever()


main()
