-- Plans, subscriptions and their payments, events and webhooks. Amounts are minor units of the plan's currency, times UTC
-- milliseconds. Queries of a browser and of the billing worker do not know the shop: the first column of their indexes is an
-- id, or the time at which something is due.

ALTER TABLE shops ADD COLUMN gateway TEXT NOT NULL DEFAULT 'sandbox';
ALTER TABLE shops ADD COLUMN gateway_url TEXT;
ALTER TABLE shops ADD COLUMN gateway_user TEXT;
ALTER TABLE shops ADD COLUMN sealed_gateway_key TEXT;
ALTER TABLE shops ADD COLUMN sealed_signing_key TEXT;
ALTER TABLE shops ADD COLUMN public_key TEXT;

CREATE TABLE plans (
    shop_id                   BIGINT NOT NULL REFERENCES shops (shop_id),
    id                        TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    title                     TEXT   NOT NULL,
    currency                  TEXT   NOT NULL,
    language                  TEXT   NOT NULL,
    infinite                  BIGINT NOT NULL,
    billing_cycles            BIGINT,
    plan_amount               BIGINT NOT NULL,
    plan_interval             BIGINT NOT NULL,
    plan_interval_unit        TEXT   NOT NULL,
    trial_amount              BIGINT,
    trial_interval            BIGINT,
    trial_interval_unit       TEXT,
    trial_as_first_payment    BIGINT,
    visible_fields            TEXT   NOT NULL,
    number_payment_attempts   BIGINT NOT NULL,
    prevent_payments_at_night BIGINT NOT NULL,
    test                      BIGINT NOT NULL,
    created_at                BIGINT NOT NULL,
    updated_at                BIGINT NOT NULL,
    PRIMARY KEY (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

CREATE INDEX plans_by_id ON plans (id);

-- period: the next period to be paid, 0 is the first charge. anchored_at: the time from which periods are counted.
-- due_at: when the billing worker has something to do. leased_until: real time, in a sandbox too.
-- version is incremented by every change, sequence by every event.
CREATE TABLE subscriptions (
    shop_id                        BIGINT NOT NULL REFERENCES shops (shop_id),
    id                             TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    version                        BIGINT NOT NULL,
    sequence                       BIGINT NOT NULL,
    state                          TEXT   NOT NULL,
    plan_id                        TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    customer_id                    TEXT   /*postgresql: COLLATE "C" */,
    tracking_id                    TEXT,
    device_id                      TEXT,
    created_at                     BIGINT NOT NULL,
    anchored_at                    BIGINT,
    period                         BIGINT NOT NULL,
    renew_at                       BIGINT,
    active_to                      BIGINT,
    paid_billing_cycles            BIGINT NOT NULL,
    number_failed_payment_attempts BIGINT NOT NULL,
    cancel_reason                  TEXT,
    cancelled_at                   BIGINT,
    gateway                        TEXT   NOT NULL,
    card                           TEXT   NOT NULL,
    additional_data                TEXT   NOT NULL,
    options                        TEXT   NOT NULL,
    last_transaction               TEXT   NOT NULL,
    return_url                     TEXT,
    notification_url               TEXT,
    checkout_token                 TEXT   /*postgresql: COLLATE "C" */,
    due_at                         BIGINT,
    leased_until                   BIGINT NOT NULL,
    PRIMARY KEY (shop_id, id),
    FOREIGN KEY (shop_id, plan_id) REFERENCES plans (shop_id, id),
    FOREIGN KEY (shop_id, customer_id) REFERENCES customers (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

CREATE INDEX subscriptions_by_customer ON subscriptions (shop_id, customer_id, id) WHERE customer_id IS NOT NULL;
CREATE INDEX subscriptions_by_plan ON subscriptions (shop_id, plan_id, id);
CREATE INDEX subscriptions_by_tracking_id ON subscriptions (shop_id, tracking_id, id) WHERE tracking_id IS NOT NULL;
CREATE INDEX subscriptions_by_token ON subscriptions (checkout_token) WHERE checkout_token IS NOT NULL;
CREATE INDEX subscriptions_due ON subscriptions (due_at) WHERE due_at IS NOT NULL;

-- The row is written before the charge and updated with its outcome. id is ours and is sent to the gateway; uid is the gateway's.
CREATE TABLE payments (
    shop_id         BIGINT NOT NULL REFERENCES shops (shop_id),
    id              TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    subscription_id TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    period          BIGINT NOT NULL,
    attempt         BIGINT NOT NULL,
    amount          BIGINT NOT NULL,
    currency        TEXT   NOT NULL,
    gateway         TEXT   NOT NULL,
    status          TEXT   NOT NULL,
    uid             TEXT,
    message         TEXT,
    redirect_url    TEXT,
    created_at      BIGINT NOT NULL,
    settled_at      BIGINT,
    PRIMARY KEY (shop_id, id),
    FOREIGN KEY (shop_id, subscription_id) REFERENCES subscriptions (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

CREATE INDEX payments_by_attempt ON payments (shop_id, subscription_id, period, attempt);
-- At most one payment of a period is in progress or successful.
CREATE UNIQUE INDEX payments_once ON payments (shop_id, subscription_id, period)
    WHERE status IN ('pending', 'unknown', 'incomplete', 'successful');
CREATE INDEX payments_by_id ON payments (id);

-- The card of a gateway's token, never its number. behaviour is for the sandbox: the outcome of charges of this card.
CREATE TABLE cards (
    shop_id    BIGINT NOT NULL REFERENCES shops (shop_id),
    token      TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    gateway    TEXT   NOT NULL,
    card       TEXT   NOT NULL,
    behaviour  TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (shop_id, token)
) /*sqlite: WITHOUT ROWID */;

-- The sandbox gateway's own records of charges.
CREATE TABLE sandbox_charges (
    shop_id    BIGINT NOT NULL REFERENCES shops (shop_id),
    id         TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    token      TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    amount     BIGINT NOT NULL,
    currency   TEXT   NOT NULL,
    status     TEXT   NOT NULL,
    message    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

CREATE INDEX sandbox_charges_by_token ON sandbox_charges (shop_id, token, created_at);

CREATE TABLE sandbox_clock (
    name      TEXT   NOT NULL PRIMARY KEY,
    frozen_at BIGINT,
    ahead     BIGINT NOT NULL
);

CREATE TABLE events (
    shop_id    BIGINT NOT NULL REFERENCES shops (shop_id),
    id         TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    type       TEXT   NOT NULL,
    object_id  TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    sequence   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    data       TEXT   NOT NULL,
    PRIMARY KEY (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

CREATE UNIQUE INDEX events_by_object ON events (shop_id, object_id, sequence);

-- The outbox: a webhook is written in the transaction of the change that it reports, and sent afterwards.
CREATE TABLE webhooks (
    shop_id         BIGINT NOT NULL REFERENCES shops (shop_id),
    id              TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    subscription_id TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    sequence        BIGINT NOT NULL,
    event           TEXT   NOT NULL,
    url             TEXT   NOT NULL,
    body            TEXT   NOT NULL,
    state           TEXT   NOT NULL,
    attempts        BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    due_at          BIGINT,
    leased_until    BIGINT NOT NULL,
    last_status     BIGINT,
    last_error      TEXT,
    delivered_at    BIGINT,
    PRIMARY KEY (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

CREATE INDEX webhooks_due ON webhooks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhooks_in_order ON webhooks (shop_id, subscription_id, sequence) WHERE due_at IS NOT NULL;
