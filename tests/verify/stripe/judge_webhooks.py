"""A thousand webhooks, changed in every way, and what PyPI's `stripe` makes of each.

    judge_webhooks.py FILE           writes the golden file
    judge_webhooks.py --check FILE   fails when `stripe` judges any of them otherwise by now

A line is a case: the header, the body in base64, and whether `stripe.Webhook.construct_event` accepts it under one of
two secrets at a fixed time. A unit test of `services/payment/src/provider/stripe/webhook.rs` judges the same cases, and
signs those that are signed right, byte for byte.
"""

import base64
import hmac
import json
import random
import sys
import time

import stripe

NOW = 1_700_000_000
SECRETS = ["whsec_new", "whsec_old"]
CASES = 1_000
BODY = b'{"id":"evt_1","object":"event","data":{"object":{"metadata":{"reference":"att_1"}}}}'


def sign(secret, seconds, body):
    text = body.decode("utf-8", "surrogateescape")
    signed = b"%d." % seconds + text.encode("utf-8", "surrogateescape")
    return hmac.new(secret.encode(), signed, "sha256").hexdigest()


def changed_body(dice):
    body = bytearray(BODY)
    kind = dice.randrange(5)
    if kind == 0:  # Another reference: still an event.
        body[BODY.index(b"att_1") + 4] = dice.choice(b"0123456789")
    elif kind == 1:
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(7)
    elif kind == 2:
        body[BODY.index(b"evt_1") + 4] = dice.randrange(128, 256)  # No UTF-8.
    elif kind == 3:
        del body[dice.randrange(len(body)) :]
    else:
        body += b" " * dice.randrange(1, 4)
    return bytes(body)


def is_event(body):
    """Whether a body can be told from another only by its signature: both sides read it, or neither does."""
    try:
        event = json.loads(body.decode("utf-8"))
        return isinstance(event["id"], str) and bool(event["id"]) and event["data"]["object"]["metadata"] is not None
    except (ValueError, KeyError, TypeError):
        return None


def header_of(dice, seconds, signature):
    number = dice.choice(
        [str(seconds)] * 6
        + [f"+{seconds}", f" {seconds}", f"{seconds // 1000}_{seconds % 1000:03}", f"0{seconds}", f"{seconds}.0"]
    )
    right = f"t={number},v1={signature}"
    wrong = signature[:-1] + dice.choice("0123456789abcdef")
    return dice.choice(
        [right] * 8
        + [
            "",
            "t=",
            "v1=" + signature,
            f"t={number}",
            f"t={number},v1",
            f"t={number},v0={signature}",
            f"t={number},v1={wrong}",
            f"t={number},v1={wrong},v1={signature}",
            f"t={number},v1={signature.upper()}",
            f"t={number}, v1={signature}",
            f"t={number},v1={signature}=",
            f"t={number},v1=={signature}",
            f"v1={signature},t={number}",
            f"t={number},t=1,v1={signature}",
            f"t=1,t={number},v1={signature}",
            f"t={number},t,v1={signature}",
            f"T={number},v1={signature}",
            f"t={number};v1={signature}",
            f"t={number},v1={signature},",
            f",,t={number},v1={signature},x=y=z",
        ]
    )


def accepted(header, body):
    for secret in SECRETS:
        try:
            stripe.Webhook.construct_event(body, header, secret)
            return True
        except (ValueError, TypeError, AttributeError, stripe.SignatureVerificationError):
            continue
    return False


def cases():
    stripe.api_key = "sk_test_golden"
    time.time = lambda: float(NOW)
    dice = random.Random(20_261_127)
    lines = []
    while len(lines) < CASES:
        seconds = NOW + dice.choice([0, 0, 0, -1, 1, -299, -300, -301, 300, 301, 86_400, -86_400])
        secret = dice.choice(SECRETS + ["whsec_other"])
        body = BODY if dice.random() < 0.5 else changed_body(dice)
        signed_body = body if dice.random() < 0.7 else BODY
        header = header_of(dice, seconds, sign(secret, seconds, signed_body))
        verdict = accepted(header, body)
        if verdict and not is_event(body):
            continue  # Signed, but no event of ours: read by the adapter, and refused with its own words.
        case = {"header": header, "body": base64.b64encode(body).decode(), "accepted": verdict}
        lines.append(json.dumps(case))
    return "\n".join(lines) + "\n"


def main():
    *flags, path = sys.argv[1:]
    golden = cases()
    if flags == ["--check"]:
        with open(path, encoding="utf-8") as file:
            if file.read() != golden:
                sys.exit(f"{path} is not what stripe {stripe.VERSION} makes of these webhooks")
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(golden)
    print(f"{CASES} webhooks, {golden.count('true}')} accepted")


main()
