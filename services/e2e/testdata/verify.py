"""Verifies webhooks by the official library for Python.

The secret comes by the environment, deliveries come as lines of JSON with
"headers" and "body" (base64). Prints how many hold; each must, and none may
once its body has changed.
"""
import base64
import json
import os
import sys

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
count = 0
for line in sys.stdin:
    delivery = json.loads(line)
    headers = {name.lower(): values[0] for name, values in delivery["headers"].items()}
    body = base64.b64decode(delivery["body"])
    message = webhook.verify(body, headers)
    if message["type"] != "stormbell.alert.v1":
        sys.exit("type " + message["type"])
    try:
        webhook.verify(body.replace(b"stormbell", b"stormbull"), headers)
        sys.exit("a changed body was taken")
    except WebhookVerificationError:
        count += 1
print(count)
