// Calls the API with openapi-fetch and the types that openapi-typescript generates into ./schema.ts, and prints the answers.
import createClient from "openapi-fetch";
import type { paths } from "./schema.ts";

const [url, user, password] = process.argv.slice(2);
const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
const client = createClient<paths>({ baseUrl: url, headers: { authorization } });

function dataOf<T>({ data, error }: { data?: T; error?: unknown }): T {
  if (data === undefined) throw new Error(JSON.stringify(error));
  return data;
}

const body = { email: "ts@example.com", ip: "127.0.0.1" };
const created = dataOf(await client.POST("/customers", { body }));
const read = dataOf(await client.GET("/customers/{customer_id}", { params: { path: { customer_id: created.id } } }));
const listed = dataOf(await client.GET("/customers", { params: { query: { email: body.email } } }));
const plan = { amount: 999, interval: 1, interval_unit: "month" };
const made = dataOf(await client.POST("/plans", { body: { title: "TS", currency: "EUR", plan, test: true } }));
const card = { number: "4200000000000000", exp_month: 1, exp_year: 2099 };
const subscription = dataOf(
  await client.POST("/subscriptions", { body: { plan: { id: made.id }, customer: { id: created.id }, card } }),
);
console.log(JSON.stringify({ created, read, listed, plan: made, subscription }));
