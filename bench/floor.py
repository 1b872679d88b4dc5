"""The reference: granian with a constant response of a customer's size, over both interfaces, and of a subscription's size."""

from __future__ import annotations

from typing import Any

BODY = (
    b'{"id":"cst_7aee5afb954c7ef7","first_name":"John","last_name":"Doe","address":"1st Street","country":"US","city":"Denver",'
    b'"zip":"92006","state":"CO","phone":"+1-555-555-5555","email":"customer@example.com","ip":"127.0.0.1","external_id":null}'
)
SUBSCRIPTION = (
    b'{"id":"sbs_7aee5afb954c7ef7","state":"active","tracking_id":"order-42","device_id":null,'
    b'"created_at":"2026-11-30T12:00:00.000Z","renew_at":"2026-12-30T12:00:00.000Z","active_to":"2026-12-30T12:00:00.000Z",'
    b'"card":{"holder":"John Doe","stamp":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff","brand":"visa",'
    b'"last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,'
    b'"token":"00112233-4455-6677-8899-aabbccddeeff","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},'
    b'"customer":{"id":"cst_7aee5afb954c7ef7"},"paid_billing_cycles":1,"number_failed_payment_attempts":0,'
    b'"additional_data":{},"plan":{"id":"pln_7aee5afb954c7ef7","title":"Basic plan","name":"Basic plan","description":'
    b'"Subscription. Main period: \xe2\x82\xac9.99 each 1 month.","amount":999,"currency":"EUR","language":"en",'
    b'"infinite":true,"billing_cycles":null,"created_at":"2026-11-30T12:00:00.000Z","updated_at":"2026-11-30T12:00:00.000Z",'
    b'"trial":{"amount":null,"interval":null,"interval_unit":"hour"},"plan":{"amount":999,"interval":1,'
    b'"interval_unit":"month","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":true,'
    b'"pay_url":"http://127.0.0.1:8080/plans/pln_7aee5afb954c7ef7/pay",'
    b'"payment_url":"http://127.0.0.1:8080/plans/pln_7aee5afb954c7ef7/pay",'
    b'"confirm_url":"http://127.0.0.1:8080/v2/confirm_order/pln_7aee5afb954c7ef7/1"},'
    b'"last_transaction":{"uid":"00112233-4455-6677-8899-aabbccddeeff","status":"successful",'
    b'"message":"Successfully processed","created_at":"2026-11-30T12:00:00.000Z"}}'
)
HEADERS = [("content-type", "application/json; charset=utf-8")]
RAW_HEADERS = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", str(len(BODY)).encode())]


async def rsgi(scope: Any, protocol: Any) -> None:
    protocol.response_bytes(200, HEADERS, BODY)


async def rsgi_subscription(scope: Any, protocol: Any) -> None:
    protocol.response_bytes(200, HEADERS, SUBSCRIPTION)


async def receiver(scope: Any, protocol: Any) -> None:
    """A merchant's server: reads the whole body of a webhook and answers 200."""
    await protocol()
    protocol.response_bytes(200, HEADERS, b"{}")


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": RAW_HEADERS})
    await send({"type": "http.response.body", "body": BODY})
