"""A server on loopback that speaks as much of S3 as keeping files takes: one bucket, in memory.

It knows no signatures. It answers as S3 does (list of version 2, NoSuchBucket, NoSuchKey, AccessDenied), so
that the client that runs in production is the one that is tested.
"""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class ObjectStore:
    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.refused = ""
        """Keys that end so may not be written."""
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                key = self._key()
                if key is None:
                    return
                if not key:
                    self._answer(200, store.listed(parse_qs(urlsplit(self.path).query)))
                elif key in store.objects:
                    self._answer(200, store.objects[key], etag(store.objects[key]))
                else:
                    self._refuse(404, "NoSuchKey", "The specified key does not exist.")

            do_HEAD = do_GET

            def do_PUT(self) -> None:
                content = self._body()
                key = self._key()
                if key is None:
                    return
                if store.refused and key.endswith(store.refused):
                    self._refuse(403, "AccessDenied", "Access Denied")
                    return
                store.objects[key] = content
                self._answer(200, b"", etag(content))

            def do_DELETE(self) -> None:
                key = self._key()
                if key is not None:
                    store.objects.pop(key, None)
                    self._answer(204, b"")

            def _key(self) -> str | None:
                bucket, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
                if bucket == store.bucket:
                    return key
                self._refuse(404, "NoSuchBucket", "The specified bucket does not exist")
                return None

            def _body(self) -> bytes:
                if "aws-chunked" not in self.headers.get("content-encoding", ""):
                    return self.rfile.read(int(self.headers.get("content-length", 0)))
                content = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    content += self.rfile.read(size)
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass  # checksums
                return content

            def _refuse(self, status: int, code: str, message: str) -> None:
                text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
                self._answer(status, text.encode())

            def _answer(self, status: int, content: bytes, tag: str = "") -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.send_header("last-modified", "Wed, 01 Jul 1998 00:00:00 GMT")
                if tag:
                    self.send_header("etag", tag)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "no_proxy": "127.0.0.1",
        }

    def listed(self, query: dict[str, list[str]]) -> bytes:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        files, folders = [], set()
        for key, content in sorted(self.objects.items()):
            if key.startswith(prefix):
                head, sign, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                if sign:
                    folders.add(f"{prefix}{head}{sign}")
                else:
                    files.append(
                        f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
                        f"<ETag>{escape(etag(content))}</ETag>"
                        "<LastModified>1998-07-01T00:00:00.000Z</LastModified></Contents>"
                    )
        text = "".join(files) + "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        return (
            f"<ListBucketResult><Name>{self.bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(files) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>{text}"
            "</ListBucketResult>"
        ).encode()

    def __enter__(self) -> "ObjectStore":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
