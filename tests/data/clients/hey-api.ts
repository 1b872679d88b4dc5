// Calls the API with the client that @hey-api/openapi-ts generates into ./client, and prints the answers.
import { createClient, createConfig } from "./client/client/index.ts";
import { createCustomer, createPlan, createSubscription, listCustomers, readCustomer } from "./client/sdk.gen.ts";
import type { NewPlan } from "./client/types.gen.ts";

const [url, user, password] = process.argv.slice(2);
const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
const client = createClient(createConfig({ baseUrl: url, headers: { authorization }, throwOnError: true }));
const options = { client, throwOnError: true } as const;

const { data: created } = await createCustomer({ ...options, body: { email: "ts@example.com", ip: "127.0.0.1" } });
const { data: read } = await readCustomer({ ...options, path: { customer_id: created.id } });
const { data: listed } = await listCustomers({ ...options, query: { email: "ts@example.com" } });
const terms: NewPlan = { title: "TS", currency: "EUR", plan: { amount: 999, interval: 1, interval_unit: "month" }, test: true };
const { data: plan } = await createPlan({ ...options, body: terms });
const card = { number: "4200000000000000", exp_month: 1, exp_year: 2099 };
const { data: subscription } = await createSubscription({
  ...options,
  body: { plan: { id: plan.id }, customer: { id: created.id }, card },
});
console.log(JSON.stringify({ created, read, listed, plan, subscription }));
