"""Draws the pictures of docs/notifications.md from the bytes that the tests compare with.

Run it anywhere, with Python's standard library alone, after a golden message has changed:
python3 docs/notifications/render.py
"""

import email
import email.policy
import html
import json
import pathlib
import re
import textwrap

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent.parent / "crates" / "notifications" / "tests" / "golden"
EVENTS = ["promotion", "rollback", "hold", "promotion_failed", "watch_ended", "alert_opened", "alert_closed",
          "dead_letter", "test"]
WIDTH = 640
GREY, INK, BLUE = "#616061", "#1d1c1d", "#1264a3"


class Picture:
    """Lines of text on a white card."""

    def __init__(self, accent):
        self.parts, self.y, self.accent = [], 20, accent

    def text(self, text, x=28, size=14, color=INK, weight="normal", font="sans-serif", width=None):
        width = width or WIDTH - x - 24
        per_line = max(10, int(width / (size * (0.62 if font == "monospace" else 0.57))))
        for line in text.split("\n"):
            for piece in textwrap.wrap(line, per_line) or [""]:
                self.y += size * 1.45
                self.parts.append(
                    f'<text x="{x}" y="{self.y:.0f}" font-family="{font}" font-size="{size}" font-weight="{weight}" '
                    f'fill="{color}" xml:space="preserve">{html.escape(piece)}</text>')

    def gap(self, height=8):
        self.y += height

    def line(self):
        self.y += 12
        self.parts.append(f'<line x1="28" x2="{WIDTH - 24}" y1="{self.y:.0f}" y2="{self.y:.0f}" stroke="#dddddd"/>')

    def button(self, text):
        self.gap()
        width = len(text) * 10 + 24
        self.parts.append(f'<rect x="28" y="{self.y:.0f}" width="{width}" height="30" rx="4" fill="none" stroke="#bbbbbb"/>')
        self.text(text, x=40, weight="bold")
        self.y += 10

    def write(self, name):
        height = self.y + 24
        card = (f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8" fill="#ffffff" stroke="#dddddd"/>'
                f'<rect x="12" y="16" width="4" height="{height - 32:.0f}" rx="2" fill="{self.accent}"/>')
        svg = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" role="img">'
               + card + "".join(self.parts) + "</svg>\n")
        (HERE / name).write_text(svg, encoding="utf-8")


def shown(mrkdwn):
    return html.unescape(mrkdwn).replace("`", "")


def slack(event):
    message = json.loads((GOLDEN / f"slack_{event}.json").read_text("utf-8"))
    picture = Picture("#4a154b")
    for block in message["blocks"]:
        kind = block["type"]
        if kind == "header":
            picture.text(block["text"]["text"], size=18, weight="bold")
        elif kind == "section" and "fields" in block:
            for left, right in zip(block["fields"][::2], block["fields"][1::2] + [None]):
                top = picture.y
                lowest = top
                for x, field in ((28, left), (330, right)):
                    if field:
                        picture.y = top + 6
                        label, _, value = shown(field["text"]).partition("\n")
                        picture.text(label.strip("*"), x=x, size=13, weight="bold", width=280)
                        picture.text(value, x=x, width=280)
                        lowest = max(lowest, picture.y)
                picture.y = lowest
        elif kind == "section":
            picture.gap()
            for line in shown(block["text"]["text"]).split("\n"):
                bold = re.fullmatch(r"\*(.+)\*", line)
                picture.text(bold[1] if bold else line, weight="bold" if bold else "normal")
        elif kind == "divider":
            picture.line()
        elif kind == "actions":
            picture.button(block["elements"][0]["text"]["text"])
        elif kind == "context":
            picture.text(shown(block["elements"][0]["text"]), size=11, color=GREY)
    picture.write(f"slack_{event}.svg")


def mail(event):
    message = email.message_from_bytes((GOLDEN / f"email_{event}.eml").read_bytes(), policy=email.policy.default)
    picture = Picture("#57606a")
    for name in ("From", "To", "Subject"):
        picture.text(f"{name}: {message[name]}", size=12, color=GREY)
    picture.line()
    page = message.get_body(("html",)).get_content()
    for tag, body in re.findall(r"<(h2|h3|p|tr|li)\b[^>]*>(.*?)</\1>", page, re.S):
        body = re.sub(r"</td><td>", ": ", body)
        text = html.unescape(re.sub(r"<[^>]+>", "", body)).strip()
        small = "<small>" in body
        if tag in ("h2", "h3"):
            picture.gap()
        picture.text(("• " if tag == "li" else "") + text, size=18 if tag == "h2" else 11 if small else 14,
                     weight="bold" if tag in ("h2", "h3") else "normal", color=GREY if small else INK)
    picture.write(f"email_{event}.svg")


def pagerduty(event):
    message = json.loads((GOLDEN / f"pagerduty_{event}.json").read_text("utf-8"))
    payload = message.get("payload")
    colors = {"critical": "#d0312d", "error": "#d0312d", "warning": "#e3a008", "info": "#1264a3"}
    picture = Picture(colors[payload["severity"]] if payload else "#048a24")
    picture.text(f"{message['event_action']} · {message['dedup_key']}", size=11, color=GREY, font="monospace")
    if payload:
        picture.text(payload["summary"], size=16, weight="bold")
        picture.text(f"severity {payload['severity']} · {payload['component']} · {payload['timestamp']}", size=12, color=GREY)
        picture.line()
        for name, value in payload["custom_details"].items():
            picture.text(f"{name}: {value}", size=13)
    else:
        picture.text("The incident under this key is resolved.", size=14)
    picture.write(f"pagerduty_{event}.svg")


def webhook(event):
    head, _, body = (GOLDEN / f"webhook_{event}.txt").read_text("utf-8").partition("\n\n")
    picture = Picture("#444444")
    picture.text(head, size=11, color=GREY, font="monospace")
    picture.line()
    picture.text(json.dumps(json.loads(body), indent=2, ensure_ascii=False), size=11, font="monospace")
    picture.write(f"webhook_{event}.svg")


for name in EVENTS:
    for draw in (slack, mail, pagerduty, webhook):
        draw(name)
