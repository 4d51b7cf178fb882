"""What PyPI's official `stripe` client sends for the operations of the adapter, recorded on loopback.

    record_requests.py FILE           writes the golden file
    record_requests.py --check FILE   fails when the client sends anything else by now

`services/payment/tests/providers/golden.rs` compares the adapter with the file. Left out are headers that name the
client and its connection, the value of the random key that the client makes up where it was given none, and the random
boundary between the parts of an upload.
"""

import http.server
import io
import json
import re
import sys
import threading

import stripe

KEY = "sk_test_golden"
ATTEMPT = "att_01h455vb4pex5vsknk084sn02q"
CAPTURE = "cap_01h455vb4pex5vsknk084sn02q"
REFUND = "re_01h455vb4pex5vsknk084sn02q"
RESPONSE = "dsp_01h455vb4pex5vsknk084sn02q-response-1"
PAYMENT = "pay_01h455vb4pex5vsknk084sn02q"
OF_THE_CLIENT = {
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "user-agent",
    "x-stripe-client-user-agent",
}


class Recorder(http.server.BaseHTTPRequestHandler):
    def record(self):
        length = int(self.headers.get("content-length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(
            {
                "method": self.command,
                "path": self.path,
                "headers": {n: headers[n] for n in sorted(headers) if n not in OF_THE_CLIENT},
                "body": self.rfile.read(length).decode(),
            }
        )
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"id": "pi_1", "object": "payment_intent", "data": []}')

    do_GET = do_POST = record

    def log_message(self, *_):
        pass


def create(client, **more):
    params = {
        "amount": 1190,
        "currency": "usd",
        "payment_method": "pm_card_visa",
        "confirm": True,
        "capture_method": "manual",
        "payment_method_types": ["card"],
        **more,
        "metadata": {"reference": ATTEMPT, "payment": PAYMENT, "order_ref": "ORDER 1 & 차"},
        "expand": ["latest_charge"],
    }
    client.v1.payment_intents.create(params, {"idempotency_key": ATTEMPT})


def named(name, content):
    file = io.BytesIO(content)
    file.name = name
    return file


def without_boundary(request):
    kind = request["headers"].get("content-type", "")
    found = re.fullmatch(r"multipart/form-data; boundary=(.+)", kind)
    if found:
        request["headers"]["content-type"] = kind.replace(found[1], "(boundary)")
        request["body"] = request["body"].replace(found[1], "(boundary)")


OPERATIONS = {
    "create": create,
    "create with redirect and multicapture": lambda client: create(
        client,
        payment_method_options={"card": {"request_multicapture": "if_available"}},
        return_url="https://shop.example/back?order=1",
    ),
    "capture": lambda client: client.v1.payment_intents.capture(
        "pi_1", {"amount_to_capture": 595}, {"idempotency_key": CAPTURE}
    ),
    "capture a part": lambda client: client.v1.payment_intents.capture(
        "pi_1",
        {"amount_to_capture": 595, "final_capture": False, "metadata": {CAPTURE: 595}},
        {"idempotency_key": CAPTURE},
    ),
    "cancel": lambda client: client.v1.payment_intents.cancel("pi_1"),
    "refund": lambda client: client.v1.refunds.create(
        {"payment_intent": "pi_1", "amount": 595, "metadata": {"reference": REFUND}},
        {"idempotency_key": REFUND},
    ),
    "retrieve": lambda client: client.v1.payment_intents.retrieve(
        "pi_1", {"expand": ["latest_charge"]}
    ),
    "search": lambda client: client.v1.payment_intents.search(
        {"query": f"metadata['reference']:'{ATTEMPT}'"}
    ),
    "list refunds": lambda client: client.v1.refunds.list({"payment_intent": "pi_1", "limit": 100}),
    "list disputes": lambda client: client.v1.disputes.list({"payment_intent": "pi_1", "limit": 100}),
    "upload evidence": lambda client: client.v1.files.create(
        {"purpose": "dispute_evidence", "file": named("receipt.pdf", b"%PDF-1.7 receipt")},
        {"idempotency_key": f"{RESPONSE}-receipt"},
    ),
    "submit evidence": lambda client: client.v1.disputes.update(
        "dp_1",
        {
            "evidence": {
                "uncategorized_text": "sent & signed for",
                "customer_email_address": "ann@shop.example",
                "receipt": "file_1",
            },
            "submit": True,
        },
        {"idempotency_key": RESPONSE},
    ),
    "close a dispute": lambda client: client.v1.disputes.close(
        "dp_1", {}, {"idempotency_key": RESPONSE}
    ),
    "list transactions": lambda client: client.v1.balance_transactions.list(
        {"limit": 100, "starting_after": "txn_1", "expand": ["data.source"]}
    ),
}


def recorded():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    client = stripe.StripeClient(KEY, base_addresses={"api": url, "files": url}, max_network_retries=0)
    golden = {}
    for name, operation in OPERATIONS.items():
        operation(client)
        (request,) = server.seen
        server.seen.clear()
        if name == "cancel":
            request["headers"]["idempotency-key"] = "(random)"
        without_boundary(request)
        golden[name] = request
    server.shutdown()
    return json.dumps(golden, indent=2, ensure_ascii=False) + "\n"


def main():
    *flags, path = sys.argv[1:]
    golden = recorded()
    if flags == ["--check"]:
        with open(path, encoding="utf-8") as file:
            if file.read() != golden:
                sys.exit(f"{path} is not what stripe {stripe.VERSION} sends")
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(golden)
    print(f"{len(OPERATIONS)} requests of stripe {stripe.VERSION}")


main()
