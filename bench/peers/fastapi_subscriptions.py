"""The peer's plans and subscriptions, written in the same way as its customers.

A subscription without a card waits for its buyer. One with a card is stored, committed, charged (a no-op here) and stored
again, as in ecomcharge. The peer does less: it has no calendar, events, webhooks, idempotency or leases.
"""

from __future__ import annotations

import json
import secrets
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Query
from peers.fastapi_sqlalchemy import Base, CustomerIn, CustomerRow, app, engine, session, shop
from pydantic import BaseModel
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, Session, joinedload, mapped_column, relationship

Login = Annotated[str, Depends(shop)]
Database = Annotated[Session, Depends(session)]


class PlanRow(Base):
    __tablename__ = "plans"
    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    currency: Mapped[str]
    test: Mapped[bool]
    amount: Mapped[int]
    interval: Mapped[int]
    interval_unit: Mapped[str]
    created_at: Mapped[datetime]


class SubscriptionRow(Base):
    __tablename__ = "subscriptions"
    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(index=True)
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customers.id"))
    tracking_id: Mapped[str | None]
    return_url: Mapped[str | None]
    token: Mapped[str | None] = mapped_column(unique=True)
    card: Mapped[str]
    created_at: Mapped[datetime]
    renew_at: Mapped[datetime | None]
    plan: Mapped[PlanRow] = relationship()


class PaymentRow(Base):
    __tablename__ = "payments"
    id: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), index=True)
    amount: Mapped[int]
    status: Mapped[str]


class PriceIn(BaseModel):
    amount: int
    interval: int
    interval_unit: str


class PlanIn(BaseModel):
    title: str
    currency: str
    test: bool = False
    plan: PriceIn


class PlanOut(BaseModel):
    model_config = {"from_attributes": True}
    id: str
    title: str
    currency: str
    test: bool
    amount: int
    interval: int
    interval_unit: str
    created_at: datetime


class PlanReference(BaseModel):
    id: str


class CardIn(BaseModel):
    number: str
    verification_value: str | None = None
    holder: str | None = None
    exp_month: int
    exp_year: int


class SubscriptionIn(BaseModel):
    plan: PlanReference
    tracking_id: str | None = None
    return_url: str | None = None
    customer: CustomerIn | None = None
    card: CardIn | None = None


class SubscriptionOut(BaseModel):
    id: str
    state: str
    tracking_id: str | None
    created_at: datetime
    renew_at: datetime | None
    card: dict[str, Any]
    customer: dict[str, str]
    plan: PlanOut
    token: str | None


Base.metadata.create_all(engine)


def answer_of(row: SubscriptionRow) -> SubscriptionOut:
    return SubscriptionOut(
        id=row.id,
        state=row.state,
        tracking_id=row.tracking_id,
        created_at=row.created_at,
        renew_at=row.renew_at,
        card=json.loads(row.card),
        customer={"id": row.customer_id} if row.customer_id else {},
        plan=PlanOut.model_validate(row.plan),
        token=row.token,
    )


@app.post("/plans", status_code=201)
def create_plan(body: PlanIn, db: Database, _: Login) -> PlanOut:
    fields = body.model_dump(exclude={"plan"}) | body.plan.model_dump()
    row = PlanRow(id=f"pln_{secrets.token_hex(8)}", created_at=datetime.now(UTC), **fields)
    db.add(row)
    db.commit()
    return PlanOut.model_validate(row)


@app.post("/subscriptions", status_code=201)
def create_subscription(body: SubscriptionIn, db: Database, _: Login) -> SubscriptionOut:
    plan = db.get(PlanRow, body.plan.id)
    if plan is None:
        raise HTTPException(422)
    row = SubscriptionRow(
        id=f"sbs_{secrets.token_hex(8)}",
        state="processing" if body.card else "redirecting",
        plan=plan,
        tracking_id=body.tracking_id,
        return_url=body.return_url,
        token=None if body.card else secrets.token_hex(32),
        card="{}",
        created_at=datetime.now(UTC),
    )
    if body.customer:
        fields = body.customer.model_dump(exclude={"ip"})
        customer = CustomerRow(id=f"cst_{secrets.token_hex(8)}", **fields, ip=str(body.customer.ip))
        db.add(customer)
        row.customer_id = customer.id
    db.add(row)
    if body.card is None:
        db.commit()
        return answer_of(row)
    payment = PaymentRow(id=str(uuid.uuid4()), subscription_id=row.id, amount=plan.amount, status="pending")
    db.add(payment)
    db.commit()
    # A real program calls the gateway here, outside any transaction.
    payment.status, row.state = "successful", "active"
    row.renew_at = datetime.now(UTC) + timedelta(days=30)
    row.card = json.dumps({"token": str(uuid.uuid4()), "last_4": body.card.number[-4:], "holder": body.card.holder})
    db.commit()
    return answer_of(row)


@app.get("/subscriptions/{subscription_id}")
def read_subscription(subscription_id: str, db: Database, _: Login) -> SubscriptionOut:
    row = db.get(SubscriptionRow, subscription_id, options=[joinedload(SubscriptionRow.plan)])
    if row is None:
        raise HTTPException(404)
    return answer_of(row)


@app.get("/subscriptions")
def list_subscriptions(
    db: Database, _: Login, state: str | None = None, limit: Annotated[int, Query(le=1000)] = 1000
) -> list[SubscriptionOut]:
    wanted = select(SubscriptionRow).options(joinedload(SubscriptionRow.plan)).order_by(SubscriptionRow.id).limit(limit)
    if state is not None:
        wanted = wanted.where(SubscriptionRow.state == state)
    return [answer_of(row) for row in db.scalars(wanted)]
