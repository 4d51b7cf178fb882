"""The shop with Stripe as its provider, against PyPI's `localstripe` as a process of its own on loopback.

    shop.py BINARY FOLDER

BINARY is `standalone`, FOLDER takes its configuration and both logs. Prints a line for each case; the last line is the
sum. What localstripe does not do, and is therefore not shown here:

- idempotency keys: the same request twice is two charges there;
- search by metadata, `return_url`, multicapture and metadata of captures: it refuses those fields;
- a redirect for 3-D Secure: it knows `use_stripe_sdk` only, so such a card counts as not authenticated;
- declines as `card_error`, decline codes, an error's `payment_intent`: a decline is an `invalid_request_error` of code
  `card_declined` there, and only for `pm_card_chargeCustomerFail`;
- `Stripe-Version`: it has one version.
"""

import hashlib
import hmac
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

KEY = "sk_test_verify"
SECRET = "whsec_verify"
READY_TIMEOUT = 60
EVENT_TIMEOUT = 30
PROBE_INTERVAL = 0.1
# Stripe's test card that asks for 3-D Secure, in groups so that nobody takes it for a leaked one.
AUTHENTICATED_CARD = "4000 0025 0000 3155".replace(" ", "")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(method, url, body=None, headers=None):
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        text = error.read()
        try:
            return error.code, json.loads(text)
        except ValueError:
            return error.code, text.decode(errors="replace")


def wait_for(what, seconds, probe):
    """What `probe` answers as soon as that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := probe():
                return found
        except OSError:
            pass
        time.sleep(PROBE_INTERVAL)
    raise AssertionError(f"{what} did not come within {seconds} s")


class Shop:
    def __init__(self, url, stripe):
        self.url, self.stripe, self.number = url, stripe, 0

    def post(self, path, body):
        self.number += 1
        headers = {"idempotency-key": f"verify-{self.number}"}
        status, answer = call("POST", f"{self.url}{path}", body, headers)
        assert status == 200, (path, status, answer)
        return answer

    def get(self, path):
        status, answer = call("GET", f"{self.url}{path}")
        assert status == 200, (path, status, answer)
        return answer

    def buy(self, method, quantity=1, capture="AUTOMATIC"):
        return self.post(
            "/v1/payments",
            {
                "orderRef": f"VERIFY-{self.number}",
                "currencyCode": "USD",
                "confirm": True,
                "paymentMethod": method,
                "captureMethod": capture,
                "items": [{"sku": "TEA-EARL-100", "quantity": quantity}],
            },
        )

    def intents(self, payment):
        """What localstripe has for a payment of the shop."""
        status, page = call("GET", f"{self.stripe}/v1/payment_intents?limit=100", headers={"authorization": f"Bearer {KEY}"})
        assert status == 200, page
        return [intent for intent in page["data"] if intent["metadata"].get("payment") == payment["id"]]


def create_and_confirm(shop):
    payment = shop.buy("pm_card_visa", 2)
    assert payment["state"] == "SUCCEEDED" and payment["provider"] == "stripe", payment
    (intent,) = shop.intents(payment)
    assert (intent["status"], str(intent["amount"])) == ("succeeded", payment["amount"]["amountMinor"]), intent


def decline_then_another_card(shop):
    payment = shop.buy("pm_card_chargeCustomerFail")
    assert payment["state"] == "REQUIRES_CONFIRMATION", payment
    assert payment["lastError"]["code"] == "CARD_DECLINED", payment
    payment = shop.post(f"/v1/payments/{payment['id']}:confirm", {"paymentMethod": "pm_card_visa"})
    assert payment["state"] == "SUCCEEDED", payment
    assert sorted(intent["status"] for intent in shop.intents(payment)) == ["requires_payment_method", "succeeded"]


def authentication_without_a_page(shop):
    fields = {"type": "card", "card": {"number": AUTHENTICATED_CARD, "exp_month": 1, "exp_year": 2040, "cvc": "123"}}
    status, method = call(
        "POST", f"{shop.stripe}/v1/payment_methods", fields, {"authorization": f"Bearer {KEY}"}
    )
    assert status == 200, method
    payment = shop.buy(method["id"])
    assert payment["lastError"]["code"] == "AUTHENTICATION_FAILED", payment


def capture_a_part_and_refund(shop):
    payment = shop.buy("pm_card_visa", 3, "MANUAL")
    assert payment["state"] == "REQUIRES_CAPTURE", payment
    assert shop.intents(payment)[0]["status"] == "requires_capture"
    lines = {"lines": [{"sku": "TEA-EARL-100", "quantity": 2}], "final": True}
    payment = shop.post(f"/v1/payments/{payment['id']}:capture", lines)
    assert payment["state"] == "SUCCEEDED", payment
    assert shop.intents(payment)[0]["status"] == "succeeded"
    refund = shop.post(f"/v1/payments/{payment['id']}/refunds", {"lines": [{"sku": "TEA-EARL-100", "quantity": 1}]})
    assert refund["state"] == "SUCCEEDED", refund
    status, page = call("GET", f"{shop.stripe}/v1/refunds?limit=100", headers={"authorization": f"Bearer {KEY}"})
    ours = [one for one in page["data"] if one["metadata"].get("reference") == refund["id"]]
    assert [str(one["amount"]) for one in ours] == [refund["amount"]["amountMinor"]], (status, ours)


def cancel(shop):
    payment = shop.buy("pm_card_visa", 1, "MANUAL")
    payment = shop.post(f"/v1/payments/{payment['id']}:cancel", {})
    assert payment["state"] == "CANCELED", payment
    assert shop.intents(payment)[0]["status"] == "canceled"


def webhooks(shop):
    """localstripe signs and sends its events to the edge, which takes each once and no forged one."""
    payment = shop.buy("pm_card_visa")
    (intent,) = shop.intents(payment)
    attempt = intent["metadata"]["reference"]

    def stored():
        page = shop.get("/v1/webhooks?provider=stripe")
        return [one for one in page["webhooks"] if one["reference"] == attempt]

    (webhook,) = wait_for("the webhook", EVENT_TIMEOUT, stored)
    replayed = shop.post(f"/v1/webhooks/stripe/{webhook['eventId']}:replay", {})
    assert replayed["state"] == "SUCCEEDED", replayed

    body = json.dumps({"id": "evt_forged", "data": {"object": {"metadata": {"reference": attempt}}}}).encode()
    seconds = int(time.time())

    def posted(secret):
        signature = hmac.new(secret.encode(), b"%d." % seconds + body, hashlib.sha256).hexdigest()
        headers = {"stripe-signature": f"t={seconds},v1={signature}"}
        return call("POST", f"{shop.url}/v1/webhooks/stripe", body, headers)[0]

    assert posted("whsec_forged") == 401
    assert len(stored()) == 1
    assert [posted(SECRET), posted(SECRET)] == [200, 200], "the same event twice is welcome"
    assert len(stored()) == 2


CASES = [
    create_and_confirm,
    decline_then_another_card,
    authentication_without_a_page,
    capture_a_part_and_refund,
    cancel,
    webhooks,
]


def main():
    binary, folder = sys.argv[1], Path(sys.argv[2])
    stripe_port, shop_port = free_port(), free_port()
    stripe, url = f"http://127.0.0.1:{stripe_port}", f"http://127.0.0.1:{shop_port}"
    config = folder / "stripe-shop.toml"
    config.write_text(
        f'[payment]\nprovider = "stripe"\n\n[payment.stripe]\nurl = "{stripe}"\n'
        f'secret_key = "{KEY}"\nwebhook_secrets = ["{SECRET}"]\n',
        encoding="utf-8",
    )
    with open(folder / "localstripe.log.txt", "w", encoding="utf-8") as stripe_log, open(
        folder / "stripe-shop.log.txt", "w", encoding="utf-8"
    ) as shop_log:
        programs = [
            subprocess.Popen(
                [sys.executable, "-m", "localstripe", "--from-scratch", "--port", str(stripe_port)],
                stdout=stripe_log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            ),
            subprocess.Popen(
                [binary, "--ephemeral", "--config", str(config), "--listen", f"127.0.0.1:{shop_port}"]
                + ["--admin-listen", "127.0.0.1:0"],
                stdout=shop_log,
                stderr=subprocess.STDOUT,
            ),
        ]
        try:
            wait_for("the shop", READY_TIMEOUT, lambda: call("GET", f"{url}/healthz")[0] == 200)
            hook = {"url": f"{url}/v1/webhooks/stripe", "secret": SECRET}
            registered = wait_for(
                "localstripe", READY_TIMEOUT, lambda: call("POST", f"{stripe}/_config/webhooks/shop", hook)
            )
            assert registered[0] == 200, registered
            shop = Shop(url, stripe)
            for case in CASES:
                case(shop)
                print(f"ok {case.__name__}")
        finally:
            for program in programs:
                program.terminate()
            for program in programs:
                program.wait(timeout=30)
    print(f"{len(CASES)} cases against localstripe")


main()
