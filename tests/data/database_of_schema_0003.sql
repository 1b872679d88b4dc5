-- A SQLite database as the release with schema 0003 wrote it over its HTTP API: a sandbox with --time-zone Europe/Minsk, its
-- clock frozen at 2027-03-01T00:30:00+03:00. Master key: the bytes 0 to 31. Shop 361, key previous-release-test-key-0123456789.
BEGIN TRANSACTION;
CREATE TABLE cards (
    shop_id    BIGINT NOT NULL REFERENCES shops (shop_id),
    token      TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    gateway    TEXT   NOT NULL,
    card       TEXT   NOT NULL,
    behaviour  TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (shop_id, token)
)  WITHOUT ROWID ;
INSERT INTO "cards" VALUES(361,'3952199d-9f12-4bbf-89a5-2dedcce54b84','sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"3952199d-9f12-4bbf-89a5-2dedcce54b84","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','successful',1803850200000);
INSERT INTO "cards" VALUES(361,'88c8e802-7124-43da-a3c3-6db9acf38141','sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"88c8e802-7124-43da-a3c3-6db9acf38141","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','successful',1803850200000);
INSERT INTO "cards" VALUES(361,'8dd1bbd2-0115-4304-b449-c373bc01d539','sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"8dd1bbd2-0115-4304-b449-c373bc01d539","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','successful',1803850200000);
INSERT INTO "cards" VALUES(361,'9e61bfa4-19d2-44a8-b322-8a1ff0e1f69d','sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"9e61bfa4-19d2-44a8-b322-8a1ff0e1f69d","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','successful',1803850200000);
INSERT INTO "cards" VALUES(361,'bc3743c0-8f7b-482b-8861-bbf25d237247','sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"bc3743c0-8f7b-482b-8861-bbf25d237247","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','successful',1801386000000);
INSERT INTO "cards" VALUES(361,'dba5522e-f2f2-4926-a9ff-ef02b34f18d1','sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"dba5522e-f2f2-4926-a9ff-ef02b34f18d1","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','successful',1801386000000);
CREATE TABLE customer_imports (
    shop_id     BIGINT NOT NULL REFERENCES shops (shop_id),
    digest      TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    lines       BIGINT NOT NULL,
    imported_at BIGINT NOT NULL,
    PRIMARY KEY (shop_id, digest)
)  WITHOUT ROWID ;
CREATE TABLE customers (
    shop_id     BIGINT NOT NULL REFERENCES shops (shop_id),
    id          TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    first_name  TEXT,
    last_name   TEXT,
    address     TEXT,
    country     TEXT,
    city        TEXT,
    zip         TEXT,
    state       TEXT,
    phone       TEXT,
    email       TEXT,
    ip          TEXT,
    external_id TEXT,
    PRIMARY KEY (shop_id, id)
)  WITHOUT ROWID ;
INSERT INTO "customers" VALUES(361,'cst_68dabe3fa0165615',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'jane@shop.test',NULL,NULL);
INSERT INTO "customers" VALUES(361,'cst_68dabe3fa0365017',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'jane@shop.test',NULL,NULL);
INSERT INTO "customers" VALUES(361,'cst_68ff766cf00d4281',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'jane@shop.test',NULL,NULL);
INSERT INTO "customers" VALUES(361,'cst_68ff766cf021b9fc',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'jane@shop.test',NULL,NULL);
INSERT INTO "customers" VALUES(361,'cst_68ff766cf021bade',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'jane@shop.test',NULL,NULL);
INSERT INTO "customers" VALUES(361,'cst_68ff766cf03fb5f0',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'jane@shop.test',NULL,NULL);
CREATE TABLE events (
    shop_id    BIGINT NOT NULL REFERENCES shops (shop_id),
    id         TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    type       TEXT   NOT NULL,
    object_id  TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    sequence   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    data       TEXT   NOT NULL,
    PRIMARY KEY (shop_id, id)
)  WITHOUT ROWID ;
INSERT INTO "events" VALUES(361,'evt_68dabe3fa01be836','created.subscription','sbs_68dabe3fa02bd015',1,1801386000000,'{"id":"sbs_68dabe3fa02bd015","state":"active","tracking_id":"month end","device_id":null,"created_at":"2027-01-31T09:00:00.000Z","renew_at":"2027-02-28T09:00:00.000Z","active_to":"2027-02-28T09:00:00.000Z","card":{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"dba5522e-f2f2-4926-a9ff-ef02b34f18d1","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},"customer":{"id":"cst_68dabe3fa0165615"},"paid_billing_cycles":1,"number_failed_payment_attempts":0,"additional_data":{},"plan":{"id":"pln_68dabe3fa0047f94","title":"month end","name":"month end","description":"Subscription. Main period: IDR 500.00 each 1 month.","amount":50000,"currency":"IDR","language":"en","infinite":true,"billing_cycles":null,"created_at":"2027-01-31T09:00:00.000Z","updated_at":"2027-01-31T09:00:00.000Z","trial":{"amount":null,"interval":null,"interval_unit":"hour"},"plan":{"amount":50000,"interval":1,"interval_unit":"month","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":false,"pay_url":"http://127.0.0.1:51769/plans/pln_68dabe3fa0047f94/pay","payment_url":"http://127.0.0.1:51769/plans/pln_68dabe3fa0047f94/pay","confirm_url":"http://127.0.0.1:51769/v2/confirm_order/pln_68dabe3fa0047f94/361"},"last_transaction":{"uid":"01a36af8-fe80-7eb1-bf59-3804f9112f16","status":"successful","message":"Successfully processed","created_at":"2027-01-31T09:00:00.000Z"},"event":"created.subscription"}');
INSERT INTO "events" VALUES(361,'evt_68dabe3fa03a23b9','created.subscription','sbs_68dabe3fa034902f',1,1801386000000,'{"id":"sbs_68dabe3fa034902f","state":"trial","tracking_id":"trial of a month","device_id":null,"created_at":"2027-01-31T09:00:00.000Z","renew_at":"2027-02-28T09:00:00.000Z","active_to":"2027-02-28T09:00:00.000Z","card":{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"bc3743c0-8f7b-482b-8861-bbf25d237247","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},"customer":{"id":"cst_68dabe3fa0365017"},"paid_billing_cycles":1,"number_failed_payment_attempts":0,"additional_data":{},"plan":{"id":"pln_68dabe3fa0047fcc","title":"trial of a month","name":"trial of a month","description":"Subscription. Main period: IDR 500.00 each 1 month. Trial: IDR 0.00 each 1 month.","amount":0,"currency":"IDR","language":"en","infinite":true,"billing_cycles":null,"created_at":"2027-01-31T09:00:00.000Z","updated_at":"2027-01-31T09:00:00.000Z","trial":{"amount":0,"interval":1,"interval_unit":"month","as_first_payment":false},"plan":{"amount":50000,"interval":1,"interval_unit":"month","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":false,"pay_url":"http://127.0.0.1:51769/plans/pln_68dabe3fa0047fcc/pay","payment_url":"http://127.0.0.1:51769/plans/pln_68dabe3fa0047fcc/pay","confirm_url":"http://127.0.0.1:51769/v2/confirm_order/pln_68dabe3fa0047fcc/361"},"last_transaction":{"uid":"01a36af8-fe80-792f-972b-40063f861f50","status":"successful","message":"Successfully processed","created_at":"2027-01-31T09:00:00.000Z"},"event":"created.subscription"}');
INSERT INTO "events" VALUES(361,'evt_68fecac3a0041b2b','renewed.subscription','sbs_68dabe3fa02bd015',2,1803805200000,'{"id":"sbs_68dabe3fa02bd015","state":"active","tracking_id":"month end","device_id":null,"created_at":"2027-01-31T09:00:00.000Z","renew_at":"2027-03-31T09:00:00.000Z","active_to":"2027-03-31T09:00:00.000Z","card":{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"dba5522e-f2f2-4926-a9ff-ef02b34f18d1","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},"customer":{"id":"cst_68dabe3fa0165615"},"paid_billing_cycles":2,"number_failed_payment_attempts":0,"additional_data":{},"plan":{"id":"pln_68dabe3fa0047f94","title":"month end","name":"month end","description":"Subscription. Main period: IDR 500.00 each 1 month.","amount":50000,"currency":"IDR","language":"en","infinite":true,"billing_cycles":null,"created_at":"2027-01-31T09:00:00.000Z","updated_at":"2027-01-31T09:00:00.000Z","trial":{"amount":null,"interval":null,"interval_unit":"hour"},"plan":{"amount":50000,"interval":1,"interval_unit":"month","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":false,"pay_url":"http://127.0.0.1:51769/plans/pln_68dabe3fa0047f94/pay","payment_url":"http://127.0.0.1:51769/plans/pln_68dabe3fa0047f94/pay","confirm_url":"http://127.0.0.1:51769/v2/confirm_order/pln_68dabe3fa0047f94/361"},"last_transaction":{"uid":"01a3fb2b-0e80-7e39-9c7e-588c8aff89ab","status":"successful","message":"Successfully processed","created_at":"2027-02-28T09:00:00.000Z"},"event":"renewed.subscription"}');
INSERT INTO "events" VALUES(361,'evt_68fecac3a0105ee2','renewed.subscription','sbs_68dabe3fa034902f',2,1803805200000,'{"id":"sbs_68dabe3fa034902f","state":"active","tracking_id":"trial of a month","device_id":null,"created_at":"2027-01-31T09:00:00.000Z","renew_at":"2027-03-28T09:00:00.000Z","active_to":"2027-03-28T09:00:00.000Z","card":{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"bc3743c0-8f7b-482b-8861-bbf25d237247","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},"customer":{"id":"cst_68dabe3fa0365017"},"paid_billing_cycles":2,"number_failed_payment_attempts":0,"additional_data":{},"plan":{"id":"pln_68dabe3fa0047fcc","title":"trial of a month","name":"trial of a month","description":"Subscription. Main period: IDR 500.00 each 1 month. Trial: IDR 0.00 each 1 month.","amount":0,"currency":"IDR","language":"en","infinite":true,"billing_cycles":null,"created_at":"2027-01-31T09:00:00.000Z","updated_at":"2027-01-31T09:00:00.000Z","trial":{"amount":0,"interval":1,"interval_unit":"month","as_first_payment":false},"plan":{"amount":50000,"interval":1,"interval_unit":"month","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":false,"pay_url":"http://127.0.0.1:51769/plans/pln_68dabe3fa0047fcc/pay","payment_url":"http://127.0.0.1:51769/plans/pln_68dabe3fa0047fcc/pay","confirm_url":"http://127.0.0.1:51769/v2/confirm_order/pln_68dabe3fa0047fcc/361"},"last_transaction":{"uid":"01a3fb2b-0e80-7e10-882b-85573454fcd9","status":"successful","message":"Successfully processed","created_at":"2027-02-28T09:00:00.000Z"},"event":"renewed.subscription"}');
INSERT INTO "events" VALUES(361,'evt_68ff766cf0119609','created.subscription','sbs_68ff766cf0121b8d',1,1803850200000,'{"id":"sbs_68ff766cf0121b8d","state":"active","tracking_id":"monthly","device_id":null,"created_at":"2027-02-28T21:30:00.000Z","renew_at":"2027-03-28T21:30:00.000Z","active_to":"2027-03-28T21:30:00.000Z","card":{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"8dd1bbd2-0115-4304-b449-c373bc01d539","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},"customer":{"id":"cst_68ff766cf00d4281"},"paid_billing_cycles":1,"number_failed_payment_attempts":0,"additional_data":{},"plan":{"id":"pln_68ff766cf00e2bbe","title":"monthly","name":"monthly","description":"Subscription. Main period: IDR 500.00 each 1 month.","amount":50000,"currency":"IDR","language":"en","infinite":true,"billing_cycles":null,"created_at":"2027-02-28T21:30:00.000Z","updated_at":"2027-02-28T21:30:00.000Z","trial":{"amount":null,"interval":null,"interval_unit":"hour"},"plan":{"amount":50000,"interval":1,"interval_unit":"month","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":false,"pay_url":"http://127.0.0.1:51769/plans/pln_68ff766cf00e2bbe/pay","payment_url":"http://127.0.0.1:51769/plans/pln_68ff766cf00e2bbe/pay","confirm_url":"http://127.0.0.1:51769/v2/confirm_order/pln_68ff766cf00e2bbe/361"},"last_transaction":{"uid":"01a3fdd9-b3c0-7594-99a5-76bcc39bd3b8","status":"successful","message":"Successfully processed","created_at":"2027-02-28T21:30:00.000Z"},"event":"created.subscription"}');
INSERT INTO "events" VALUES(361,'evt_68ff766cf02706ae','created.subscription','sbs_68ff766cf0121bd8',1,1803850200000,'{"id":"sbs_68ff766cf0121bd8","state":"active","tracking_id":"yearly","device_id":null,"created_at":"2027-02-28T21:30:00.000Z","renew_at":"2028-02-28T21:30:00.000Z","active_to":"2028-02-28T21:30:00.000Z","card":{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"3952199d-9f12-4bbf-89a5-2dedcce54b84","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},"customer":{"id":"cst_68ff766cf021b9fc"},"paid_billing_cycles":1,"number_failed_payment_attempts":0,"additional_data":{},"plan":{"id":"pln_68ff766cf03ffcd0","title":"yearly","name":"yearly","description":"Subscription. Main period: IDR 500.00 each 1 year.","amount":50000,"currency":"IDR","language":"en","infinite":true,"billing_cycles":null,"created_at":"2027-02-28T21:30:00.000Z","updated_at":"2027-02-28T21:30:00.000Z","trial":{"amount":null,"interval":null,"interval_unit":"hour"},"plan":{"amount":50000,"interval":1,"interval_unit":"year","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":false,"pay_url":"http://127.0.0.1:51769/plans/pln_68ff766cf03ffcd0/pay","payment_url":"http://127.0.0.1:51769/plans/pln_68ff766cf03ffcd0/pay","confirm_url":"http://127.0.0.1:51769/v2/confirm_order/pln_68ff766cf03ffcd0/361"},"last_transaction":{"uid":"01a3fdd9-b3c0-78c9-9aee-07f583c735ea","status":"successful","message":"Successfully processed","created_at":"2027-02-28T21:30:00.000Z"},"event":"created.subscription"}');
INSERT INTO "events" VALUES(361,'evt_68ff766cf03189bd','created.subscription','sbs_68ff766cf01ae97c',1,1803850200000,'{"id":"sbs_68ff766cf01ae97c","state":"active","tracking_id":"daily","device_id":null,"created_at":"2027-02-28T21:30:00.000Z","renew_at":"2027-03-01T21:30:00.000Z","active_to":"2027-03-01T21:30:00.000Z","card":{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"88c8e802-7124-43da-a3c3-6db9acf38141","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},"customer":{"id":"cst_68ff766cf021bade"},"paid_billing_cycles":1,"number_failed_payment_attempts":0,"additional_data":{},"plan":{"id":"pln_68ff766cf03ffcef","title":"daily","name":"daily","description":"Subscription. Main period: IDR 500.00 each 1 day.","amount":50000,"currency":"IDR","language":"en","infinite":true,"billing_cycles":null,"created_at":"2027-02-28T21:30:00.000Z","updated_at":"2027-02-28T21:30:00.000Z","trial":{"amount":null,"interval":null,"interval_unit":"hour"},"plan":{"amount":50000,"interval":1,"interval_unit":"day","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":false,"pay_url":"http://127.0.0.1:51769/plans/pln_68ff766cf03ffcef/pay","payment_url":"http://127.0.0.1:51769/plans/pln_68ff766cf03ffcef/pay","confirm_url":"http://127.0.0.1:51769/v2/confirm_order/pln_68ff766cf03ffcef/361"},"last_transaction":{"uid":"01a3fdd9-b3c0-77e4-a638-2080b8818134","status":"successful","message":"Successfully processed","created_at":"2027-02-28T21:30:00.000Z"},"event":"created.subscription"}');
INSERT INTO "events" VALUES(361,'evt_68ff766cf03189d5','created.subscription','sbs_68ff766cf02f625f',1,1803850200000,'{"id":"sbs_68ff766cf02f625f","state":"trial","tracking_id":"trial of a day","device_id":null,"created_at":"2027-02-28T21:30:00.000Z","renew_at":"2027-03-01T21:30:00.000Z","active_to":"2027-03-01T21:30:00.000Z","card":{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"9e61bfa4-19d2-44a8-b322-8a1ff0e1f69d","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null},"customer":{"id":"cst_68ff766cf03fb5f0"},"paid_billing_cycles":1,"number_failed_payment_attempts":0,"additional_data":{},"plan":{"id":"pln_68ff766cf03ffd52","title":"trial of a day","name":"trial of a day","description":"Subscription. Main period: IDR 500.00 each 1 month. Trial: IDR 0.00 each 1 day.","amount":0,"currency":"IDR","language":"en","infinite":true,"billing_cycles":null,"created_at":"2027-02-28T21:30:00.000Z","updated_at":"2027-02-28T21:30:00.000Z","trial":{"amount":0,"interval":1,"interval_unit":"day","as_first_payment":false},"plan":{"amount":50000,"interval":1,"interval_unit":"month","visible_fields":[]},"number_payment_attempts":3,"prevent_payments_at_night":false,"test":false,"pay_url":"http://127.0.0.1:51769/plans/pln_68ff766cf03ffd52/pay","payment_url":"http://127.0.0.1:51769/plans/pln_68ff766cf03ffd52/pay","confirm_url":"http://127.0.0.1:51769/v2/confirm_order/pln_68ff766cf03ffd52/361"},"last_transaction":{"uid":"01a3fdd9-b3c0-7f35-97ab-e1b507ed6e24","status":"successful","message":"Successfully processed","created_at":"2027-02-28T21:30:00.000Z"},"event":"created.subscription"}');
CREATE TABLE idempotency_keys (
    shop_id     BIGINT NOT NULL REFERENCES shops (shop_id),
    key         TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    claim       TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    fingerprint TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    status      BIGINT,
    location    TEXT,
    body        TEXT,
    PRIMARY KEY (shop_id, key)
)  WITHOUT ROWID ;
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
)  WITHOUT ROWID ;
INSERT INTO "payments" VALUES(361,'01a36af8-fe80-792f-972b-40063f861f50','sbs_68dabe3fa034902f',0,1,0,'IDR','sandbox','successful','01a36af8-fe80-792f-972b-40063f861f50','Successfully processed',NULL,1801386000000,1801386000000);
INSERT INTO "payments" VALUES(361,'01a36af8-fe80-7eb1-bf59-3804f9112f16','sbs_68dabe3fa02bd015',0,1,50000,'IDR','sandbox','successful','01a36af8-fe80-7eb1-bf59-3804f9112f16','Successfully processed',NULL,1801386000000,1801386000000);
INSERT INTO "payments" VALUES(361,'01a3fb2b-0e80-7e10-882b-85573454fcd9','sbs_68dabe3fa034902f',1,1,50000,'IDR','sandbox','successful','01a3fb2b-0e80-7e10-882b-85573454fcd9','Successfully processed',NULL,1803805200000,1803805200000);
INSERT INTO "payments" VALUES(361,'01a3fb2b-0e80-7e39-9c7e-588c8aff89ab','sbs_68dabe3fa02bd015',1,1,50000,'IDR','sandbox','successful','01a3fb2b-0e80-7e39-9c7e-588c8aff89ab','Successfully processed',NULL,1803805200000,1803805200000);
INSERT INTO "payments" VALUES(361,'01a3fdd9-b3c0-7594-99a5-76bcc39bd3b8','sbs_68ff766cf0121b8d',0,1,50000,'IDR','sandbox','successful','01a3fdd9-b3c0-7594-99a5-76bcc39bd3b8','Successfully processed',NULL,1803850200000,1803850200000);
INSERT INTO "payments" VALUES(361,'01a3fdd9-b3c0-77e4-a638-2080b8818134','sbs_68ff766cf01ae97c',0,1,50000,'IDR','sandbox','successful','01a3fdd9-b3c0-77e4-a638-2080b8818134','Successfully processed',NULL,1803850200000,1803850200000);
INSERT INTO "payments" VALUES(361,'01a3fdd9-b3c0-78c9-9aee-07f583c735ea','sbs_68ff766cf0121bd8',0,1,50000,'IDR','sandbox','successful','01a3fdd9-b3c0-78c9-9aee-07f583c735ea','Successfully processed',NULL,1803850200000,1803850200000);
INSERT INTO "payments" VALUES(361,'01a3fdd9-b3c0-7f35-97ab-e1b507ed6e24','sbs_68ff766cf02f625f',0,1,0,'IDR','sandbox','successful','01a3fdd9-b3c0-7f35-97ab-e1b507ed6e24','Successfully processed',NULL,1803850200000,1803850200000);
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
)  WITHOUT ROWID ;
INSERT INTO "plans" VALUES(361,'pln_68dabe3fa0047f94','month end','IDR','en',1,NULL,50000,1,'month',NULL,NULL,NULL,NULL,'[]',3,0,0,1801386000000,1801386000000);
INSERT INTO "plans" VALUES(361,'pln_68dabe3fa0047fcc','trial of a month','IDR','en',1,NULL,50000,1,'month',0,1,'month',0,'[]',3,0,0,1801386000000,1801386000000);
INSERT INTO "plans" VALUES(361,'pln_68ff766cf00e2bbe','monthly','IDR','en',1,NULL,50000,1,'month',NULL,NULL,NULL,NULL,'[]',3,0,0,1803850200000,1803850200000);
INSERT INTO "plans" VALUES(361,'pln_68ff766cf03ffcd0','yearly','IDR','en',1,NULL,50000,1,'year',NULL,NULL,NULL,NULL,'[]',3,0,0,1803850200000,1803850200000);
INSERT INTO "plans" VALUES(361,'pln_68ff766cf03ffcef','daily','IDR','en',1,NULL,50000,1,'day',NULL,NULL,NULL,NULL,'[]',3,0,0,1803850200000,1803850200000);
INSERT INTO "plans" VALUES(361,'pln_68ff766cf03ffd52','trial of a day','IDR','en',1,NULL,50000,1,'month',0,1,'day',0,'[]',3,0,0,1803850200000,1803850200000);
INSERT INTO "plans" VALUES(361,'pln_68ff766cf03ffe3c','waits','IDR','en',1,NULL,50000,1,'month',NULL,NULL,NULL,NULL,'[]',3,0,0,1803850200000,1803850200000);
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
)  WITHOUT ROWID ;
INSERT INTO "sandbox_charges" VALUES(361,'01a36af8-fe80-792f-972b-40063f861f50','bc3743c0-8f7b-482b-8861-bbf25d237247',0,'IDR','successful','Successfully processed',1801386000000);
INSERT INTO "sandbox_charges" VALUES(361,'01a36af8-fe80-7eb1-bf59-3804f9112f16','dba5522e-f2f2-4926-a9ff-ef02b34f18d1',50000,'IDR','successful','Successfully processed',1801386000000);
INSERT INTO "sandbox_charges" VALUES(361,'01a3fb2b-0e80-7e10-882b-85573454fcd9','bc3743c0-8f7b-482b-8861-bbf25d237247',50000,'IDR','successful','Successfully processed',1803805200000);
INSERT INTO "sandbox_charges" VALUES(361,'01a3fb2b-0e80-7e39-9c7e-588c8aff89ab','dba5522e-f2f2-4926-a9ff-ef02b34f18d1',50000,'IDR','successful','Successfully processed',1803805200000);
INSERT INTO "sandbox_charges" VALUES(361,'01a3fdd9-b3c0-7594-99a5-76bcc39bd3b8','8dd1bbd2-0115-4304-b449-c373bc01d539',50000,'IDR','successful','Successfully processed',1803850200000);
INSERT INTO "sandbox_charges" VALUES(361,'01a3fdd9-b3c0-77e4-a638-2080b8818134','88c8e802-7124-43da-a3c3-6db9acf38141',50000,'IDR','successful','Successfully processed',1803850200000);
INSERT INTO "sandbox_charges" VALUES(361,'01a3fdd9-b3c0-78c9-9aee-07f583c735ea','3952199d-9f12-4bbf-89a5-2dedcce54b84',50000,'IDR','successful','Successfully processed',1803850200000);
INSERT INTO "sandbox_charges" VALUES(361,'01a3fdd9-b3c0-7f35-97ab-e1b507ed6e24','9e61bfa4-19d2-44a8-b322-8a1ff0e1f69d',0,'IDR','successful','Successfully processed',1803850200000);
CREATE TABLE sandbox_clock (
    name      TEXT   NOT NULL PRIMARY KEY,
    frozen_at BIGINT,
    ahead     BIGINT NOT NULL
);
INSERT INTO "sandbox_clock" VALUES('clock',1803850200000,0);
CREATE TABLE schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO "schema_migrations" VALUES(1,'shops_customers_idempotency');
INSERT INTO "schema_migrations" VALUES(2,'customer_imports');
INSERT INTO "schema_migrations" VALUES(3,'plans_subscriptions_webhooks');
CREATE TABLE shop_keys (
    shop_id    BIGINT NOT NULL REFERENCES shops (shop_id),
    key_hash   TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    sealed_key TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    PRIMARY KEY (shop_id, key_hash)
)  WITHOUT ROWID ;
INSERT INTO "shop_keys" VALUES(361,'23631ef9d8b4bdc967434ecd38e8e49ca139d74bd3542351f56281da03bb7d35','c1/hGeeLxkHsEVlzLXPF6P+TuPf6zWZPvoPlva4JIFZD0iiAcapp2Ccsxu30X79YximP2sw080DHp5bUbZo1Gg==',1796033771136,NULL);
CREATE TABLE shops (
    shop_id    BIGINT NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    closed_at  BIGINT
, gateway TEXT NOT NULL DEFAULT 'sandbox', gateway_url TEXT, gateway_user TEXT, sealed_gateway_key TEXT, sealed_signing_key TEXT, public_key TEXT);
INSERT INTO "shops" VALUES(361,'Previous release',1796033771136,NULL,'sandbox',NULL,NULL,NULL,NULL,NULL);
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
)  WITHOUT ROWID ;
INSERT INTO "subscriptions" VALUES(361,'sbs_68dabe3fa02bd015',3,2,'active','pln_68dabe3fa0047f94','cst_68dabe3fa0165615','month end',NULL,1801386000000,1801386000000,2,1806483600000,1806483600000,2,0,NULL,NULL,'sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"dba5522e-f2f2-4926-a9ff-ef02b34f18d1","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','{}','{}','{"uid":"01a3fb2b-0e80-7e39-9c7e-588c8aff89ab","status":"successful","message":"Successfully processed","created_at":"2027-02-28T09:00:00.000Z"}',NULL,NULL,NULL,1806483600000,0);
INSERT INTO "subscriptions" VALUES(361,'sbs_68dabe3fa034902f',3,2,'active','pln_68dabe3fa0047fcc','cst_68dabe3fa0365017','trial of a month',NULL,1801386000000,1803805200000,2,1806224400000,1806224400000,2,0,NULL,NULL,'sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"bc3743c0-8f7b-482b-8861-bbf25d237247","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','{}','{}','{"uid":"01a3fb2b-0e80-7e10-882b-85573454fcd9","status":"successful","message":"Successfully processed","created_at":"2027-02-28T09:00:00.000Z"}',NULL,NULL,NULL,1806224400000,0);
INSERT INTO "subscriptions" VALUES(361,'sbs_68ff766cf0121b8d',1,1,'active','pln_68ff766cf00e2bbe','cst_68ff766cf00d4281','monthly',NULL,1803850200000,1803850200000,1,1806269400000,1806269400000,1,0,NULL,NULL,'sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"8dd1bbd2-0115-4304-b449-c373bc01d539","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','{}','{}','{"uid":"01a3fdd9-b3c0-7594-99a5-76bcc39bd3b8","status":"successful","message":"Successfully processed","created_at":"2027-02-28T21:30:00.000Z"}',NULL,NULL,NULL,1806269400000,0);
INSERT INTO "subscriptions" VALUES(361,'sbs_68ff766cf0121bd8',1,1,'active','pln_68ff766cf03ffcd0','cst_68ff766cf021b9fc','yearly',NULL,1803850200000,1803850200000,1,1835386200000,1835386200000,1,0,NULL,NULL,'sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"3952199d-9f12-4bbf-89a5-2dedcce54b84","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','{}','{}','{"uid":"01a3fdd9-b3c0-78c9-9aee-07f583c735ea","status":"successful","message":"Successfully processed","created_at":"2027-02-28T21:30:00.000Z"}',NULL,NULL,NULL,1835386200000,0);
INSERT INTO "subscriptions" VALUES(361,'sbs_68ff766cf01ae97c',1,1,'active','pln_68ff766cf03ffcef','cst_68ff766cf021bade','daily',NULL,1803850200000,1803850200000,1,1803936600000,1803936600000,1,0,NULL,NULL,'sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"88c8e802-7124-43da-a3c3-6db9acf38141","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','{}','{}','{"uid":"01a3fdd9-b3c0-77e4-a638-2080b8818134","status":"successful","message":"Successfully processed","created_at":"2027-02-28T21:30:00.000Z"}',NULL,NULL,NULL,1803936600000,0);
INSERT INTO "subscriptions" VALUES(361,'sbs_68ff766cf02f625f',1,1,'trial','pln_68ff766cf03ffd52','cst_68ff766cf03fb5f0','trial of a day',NULL,1803850200000,1803936600000,1,1803936600000,1803936600000,1,0,NULL,NULL,'sandbox','{"holder":"Jane","stamp":"9536f5e9cbd00741b663f69ec64d9dbb1a483c7e807a46f56fa2e83c34990f16","brand":"visa","last_4":"0000","first_1":"4","bin":"420000","issuer_country":null,"issuer_name":null,"product":null,"token":"9e61bfa4-19d2-44a8-b322-8a1ff0e1f69d","token_provider":null,"exp_month":12,"exp_year":2099,"sub_brand":null}','{}','{}','{"uid":"01a3fdd9-b3c0-7f35-97ab-e1b507ed6e24","status":"successful","message":"Successfully processed","created_at":"2027-02-28T21:30:00.000Z"}',NULL,NULL,NULL,1803936600000,0);
INSERT INTO "subscriptions" VALUES(361,'sbs_68ff766cf02f6341',0,0,'redirecting','pln_68ff766cf03ffe3c',NULL,'waits',NULL,1803850200000,NULL,0,NULL,NULL,0,0,NULL,NULL,'sandbox','{}','{}','{}','{}',NULL,NULL,'5fe611190c7ae590e8fc866f54201f6ccd49da72d6f7bf99e5c89318810d8239',1803936600000,0);
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
)  WITHOUT ROWID ;
CREATE INDEX customers_by_email ON customers (shop_id, email, id);
CREATE INDEX customers_by_external_id ON customers (shop_id, external_id, id) WHERE external_id IS NOT NULL;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (shop_id, created_at);
CREATE INDEX plans_by_id ON plans (id);
CREATE INDEX subscriptions_by_customer ON subscriptions (shop_id, customer_id, id) WHERE customer_id IS NOT NULL;
CREATE INDEX subscriptions_by_plan ON subscriptions (shop_id, plan_id, id);
CREATE INDEX subscriptions_by_tracking_id ON subscriptions (shop_id, tracking_id, id) WHERE tracking_id IS NOT NULL;
CREATE INDEX subscriptions_by_token ON subscriptions (checkout_token) WHERE checkout_token IS NOT NULL;
CREATE INDEX subscriptions_due ON subscriptions (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX payments_by_attempt ON payments (shop_id, subscription_id, period, attempt);
CREATE UNIQUE INDEX payments_once ON payments (shop_id, subscription_id, period)
    WHERE status IN ('pending', 'unknown', 'incomplete', 'successful');
CREATE INDEX payments_by_id ON payments (id);
CREATE INDEX sandbox_charges_by_token ON sandbox_charges (shop_id, token, created_at);
CREATE UNIQUE INDEX events_by_object ON events (shop_id, object_id, sequence);
CREATE INDEX webhooks_due ON webhooks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX webhooks_in_order ON webhooks (shop_id, subscription_id, sequence) WHERE due_at IS NOT NULL;
COMMIT;
