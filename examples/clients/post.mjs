// Posts one message to a Postern on this machine and prints its answer, with what Node (18 or later) has by itself.
// Usage: node post.mjs DESTINATION KEY BODY. INGEST_URL names another Postern, INGEST_TOKEN its token if it wants one.

import { argv, env, exit } from "node:process"
import { setTimeout as sleep } from "node:timers/promises"

const attempts = 6

// post returns Postern's answer. While there is none, or one that asks to come again, it does so: the key makes that
// safe, since the same key and body are one message.
async function post(destination, key, body) {
  const url = `${env.INGEST_URL ?? "http://127.0.0.1:8025"}/to/${encodeURIComponent(destination)}`
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key }
  if (env.INGEST_TOKEN) headers.Authorization = `Bearer ${env.INGEST_TOKEN}`
  let pause = 200
  for (let attempt = 1; ; attempt++) {
    let wait = pause
    let failure
    try {
      const answer = await fetch(url, { method: "POST", headers, body, signal: AbortSignal.timeout(30_000) })
      const text = await answer.text()
      if (answer.ok) return text
      failure = new Error(`${answer.status} ${answer.statusText}: ${text}`)
      if (answer.status !== 429 && answer.status < 500) failure.final = true // the same again would get the same answer
      const after = answer.headers.get("retry-after")
      if (/^\d+$/.test(after ?? "")) wait = Number(after) * 1000
    } catch (error) {
      failure = new Error(error.cause?.message || error.message)
    }
    if (failure.final || attempt === attempts) throw failure
    await sleep(wait)
    pause *= 2
  }
}

if (argv.length !== 5) {
  console.error("usage: node post.mjs DESTINATION KEY BODY")
  exit(2)
}
try {
  console.log(await post(argv[2], argv[3], argv[4]))
} catch (error) {
  console.error(error.message)
  exit(1)
}
