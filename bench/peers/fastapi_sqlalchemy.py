"""The peer: the same resource, written as the documentation of FastAPI and SQLAlchemy recommends.

Sync endpoints in FastAPI's thread pool, a session per request, a Pydantic model in and out, SQLite in WAL with
``synchronous=FULL``. Run by uvicorn with uvloop and httptools. No idempotency, logs or metrics: it does less.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel, EmailStr, IPvAnyAddress
from sqlalchemy import String, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

# A connection for each running request. With the default of 15, FastAPI's forty threads wait for connections
# that are held by requests which wait for a thread, and no request is answered for the pool's timeout of 30 seconds.
engine = create_engine(
    f"sqlite:///{os.environ['PEER_DATABASE']}", connect_args={"check_same_thread": False, "timeout": 30}, pool_size=64
)
new_session = sessionmaker(engine, autoflush=False)


@event.listens_for(engine, "connect")
def durable(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


class Base(DeclarativeBase):
    pass


class CustomerRow(Base):
    __tablename__ = "customers"
    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    first_name: Mapped[str | None]
    last_name: Mapped[str | None]
    address: Mapped[str | None]
    country: Mapped[str | None]
    city: Mapped[str | None]
    zip: Mapped[str | None]
    state: Mapped[str | None]
    phone: Mapped[str | None]
    email: Mapped[str] = mapped_column(index=True)
    ip: Mapped[str]


class CustomerIn(BaseModel):
    first_name: str | None = None
    last_name: str | None = None
    address: str | None = None
    country: str | None = None
    city: str | None = None
    zip: str | None = None
    state: str | None = None
    phone: str | None = None
    email: EmailStr
    ip: IPvAnyAddress


class CustomerOut(BaseModel):
    model_config = {"from_attributes": True}
    id: str
    first_name: str | None
    last_name: str | None
    address: str | None
    country: str | None
    city: str | None
    zip: str | None
    state: str | None
    phone: str | None
    email: str
    ip: str


Base.metadata.create_all(engine)
app = FastAPI()
basic = HTTPBasic()


def session() -> Iterator[Session]:
    with new_session() as opened:
        yield opened


def shop(credentials: Annotated[HTTPBasicCredentials, Depends(basic)]) -> str:
    if not secrets.compare_digest(credentials.password.encode(), os.environ["PEER_KEY"].encode()):
        raise HTTPException(401)
    return credentials.username


@app.post("/customers", status_code=201, response_model=CustomerOut)
def create(body: CustomerIn, db: Annotated[Session, Depends(session)], _: Annotated[str, Depends(shop)]) -> CustomerRow:
    row = CustomerRow(id=f"cst_{secrets.token_hex(8)}", **body.model_dump(exclude={"ip"}), ip=str(body.ip))
    db.add(row)
    db.commit()
    db.refresh(row)
    return row


@app.get("/customers/{customer_id}", response_model=CustomerOut)
def read(customer_id: str, db: Annotated[Session, Depends(session)], _: Annotated[str, Depends(shop)]) -> CustomerRow:
    row = db.get(CustomerRow, customer_id)
    if row is None:
        raise HTTPException(404)
    return row


@app.get("/customers", response_model=list[CustomerOut])
def everyone(
    db: Annotated[Session, Depends(session)], _: Annotated[str, Depends(shop)], limit: Annotated[int, Query(le=1000)] = 1000
) -> list[CustomerRow]:
    return list(db.scalars(select(CustomerRow).order_by(CustomerRow.id).limit(limit)))
