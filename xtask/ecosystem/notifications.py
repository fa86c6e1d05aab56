"""Notifications as strangers see them: signatures checked by the standardwebhooks package, mail taken by aiosmtpd and
read by the standard library, Slack's and PagerDuty's bodies by their documented shapes.

Argument: the program podium-api, which is started with a database of its own.
"""

import base64
import email
import email.policy
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from aiosmtpd.controller import Controller
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

PROGRAM = sys.argv[1]
ANSWERS = {"/slack": (200, b"ok"), "/pagerduty": (202, b'{"status":"success"}'), "/hook": (204, b"")}


class Sink(BaseHTTPRequestHandler):
    received = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        Sink.received.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, answer = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Postbox:
    mails = []

    async def handle_DATA(self, server, session, envelope):
        Postbox.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 2.0.0 taken"


def secret():
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Api:
    def __init__(self, url, token):
        self.url, self.token = url, token

    def __call__(self, method, path, body=None):
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json", "if-match": "*"}
        data = json.dumps(body or {}).encode()
        try:
            with urlopen(Request(self.url + path, data, headers, method=method), timeout=30) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")

    def target(self, **body):
        return "/api/v1/admin/notification-configs/" + self("POST", "/api/v1/admin/notification-configs", body)["id"]

    def test(self, target):
        went = self("POST", target + "/test")
        assert went["status"] == "sent", went
        return went


def verify(key, headers, body):
    Webhook(key).verify(body, headers)


def refused(key, headers, body):
    try:
        verify(key, headers, body)
    except WebhookVerificationError:
        return
    sys.exit("a wrong signature was accepted")


def check_webhook(api, base):
    first, second = secret(), secret()
    target = api.target(channel="webhook", webhookUrl=base + "/hook", apiKey=first)
    went = api.test(target)
    _, headers, body = Sink.received[-1]
    assert headers["webhook-id"] == went["id"]
    verify(first, headers, body)
    refused(second, headers, body)
    refused(first, headers, body + b" ")
    # While secrets rotate, receivers with either one accept the message.
    api("PATCH", target, {"apiKey": second})
    api.test(target)
    _, headers, body = Sink.received[-1]
    verify(first, headers, body)
    verify(second, headers, body)
    print("webhook: signatures hold, also while secrets rotate")


def check_slack(api, base):
    api.test(api.target(channel="slack", webhookUrl=base + "/slack"))
    _, headers, body = Sink.received[-1]
    message = json.loads(body)
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert message["text"] and {block["type"] for block in message["blocks"]} <= {
        "header", "section", "divider", "actions", "context"}
    print("slack: text and", len(message["blocks"]), "blocks")


def check_pagerduty(api):
    api.test(api.target(channel="pagerduty", routingKey="0" * 32))
    event = json.loads(Sink.received[-1][2])
    assert event["event_action"] == "trigger" and event["routing_key"] == "0" * 32
    assert event["payload"]["severity"] in ("critical", "error", "warning", "info")
    assert re.fullmatch(r"target:[0-9a-f-]{36}", event["dedup_key"])
    print("pagerduty: a trigger of severity", event["payload"]["severity"])


def check_mail(api):
    went = api.test(api.target(channel="email", emailAddress="ops@example.com"))
    sender, recipients, content = Postbox.mails[-1]
    assert (sender, recipients) == ("podium@example.com", ["ops@example.com"])
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert not mail.defects, mail.defects
    assert mail["message-id"] == f"<{went['id']}@example.com>"
    assert mail["auto-submitted"] == "auto-generated"
    kinds = [part.get_content_type() for part in mail.iter_parts()]
    assert mail.get_content_type() == "multipart/alternative" and kinds == ["text/plain", "text/html"]
    plain, html = (part.get_content() for part in mail.iter_parts())
    assert "Test message" in plain and "Test message" in html
    print("email:", mail["subject"])


def main():
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{sink.server_port}"
    # The controller cannot tell which port the system gave it.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    postbox = Controller(Postbox(), hostname="127.0.0.1", port=port)
    postbox.start()
    variables = dict(
        os.environ, HOST="127.0.0.1", PORT="0", JWT_SECRET=secrets.token_urlsafe(48), RUST_LOG="warn",
        NOTIFY_ALLOW_PRIVATE_TARGETS="true", PAGERDUTY_EVENTS_URL=base + "/pagerduty",
        SMTP_URL=f"smtp://127.0.0.1:{port}", SMTP_FROM="Podium <podium@example.com>")
    folder = tempfile.mkdtemp(dir="/tmp")
    os.chmod(folder, 0o755)
    variables["PODIUM_DATA_DIR"] = os.path.join(folder, "podium")
    program = subprocess.Popen([PROGRAM], env=variables, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in program.stdout if line.startswith("listening on "))
        token = subprocess.check_output([PROGRAM, "token", "--user", "1"], env=variables, text=True).strip()
        api = Api(line.removeprefix("listening on ").strip(), token)
        check_webhook(api, base)
        check_slack(api, base)
        check_pagerduty(api)
        check_mail(api)
    finally:
        program.terminate()
        program.wait(30)
        postbox.stop()
        subprocess.run(["rm", "-rf", folder], check=False)


main()
