package main

import "context"

// measurement makes some rows of the table.
type measurement struct {
	name  string
	about string
	run   func(context.Context, *bench) ([]figure, error)
}

// measurements lists all, in the order of the table.
func measurements() []measurement {
	return []measurement{
		{"accepts", "durable accepts a second at 1, 16, 64 and 256 connections, beside (a) and (b)", measureAccepts},
		{"lone", "one lone post until its answer, beside (b)", measureLone},
		{"receipt", "post to receipt at 100/s, beside (d)", measureReceipt},
		{"delivered", "accepted and delivered at once, and the processor time of it, beside (d)", measureDelivered},
		{"drain", "drain of a backlog over HTTP/1.1 and HTTP/2, beside (c)", measureDrain},
		{"memory", "resident memory: idle, and under the load of 64 connections", measureMemory},
		{"pending", "a large backlog: memory, ingest and drain against an empty store, starts", measurePending},
		{"history", "a long history: bytes written, pages, disk after the retention has passed", measureHistory},
		{"growth", "how the cost grows with what is pending", measureGrowth},
		{"destinations", "how the cost grows with destinations, 90 % of them dead", measureDestinations},
	}
}
