package admin

import (
	"net/http"
	"time"
)

const (
	openAPIPath = apiPath + "/openapi.json"
	rawType     = "application/octet-stream"

	destinationsPath = apiPath + "/destinations"
	deliveriesPath   = apiPath + "/deliveries"
	messagesPath     = apiPath + "/messages"
	overviewPath     = apiPath + "/overview"
	replayPath       = apiPath + "/replay"
	reloadPath       = apiPath + "/reload"
	eventsPath       = apiPath + "/events"
	backupPath       = apiPath + "/backup"
)

// How long a request may take that takes longer than others, at both ends.
const (
	testTimeout   = 11 * time.Minute // longer than a destination's timeout can be
	replayTimeout = maxReplayTime + time.Minute
	backupTimeout = time.Hour // to make one
)

// operations returns the API.
func operations() []operation {
	const get, post = http.MethodGet, http.MethodPost
	return []operation{
		answering(operation{
			id: "getOverview", method: get, path: overviewPath, summary: "The state of the relay at a glance.",
		}, (*Handler).overview),

		answering(operation{
			id: "listDestinations", method: get, path: destinationsPath, summary: "The state of all destinations.",
		}, (*Handler).listDestinations),
		answering(operation{
			id: "getDestination", method: get, path: destinationsPath + "/{name}",
			summary: "The state of a destination and its effective config, secrets masked.", refusals: []int{404},
		}, (*Handler).getDestination),
		answering(operation{
			id: "pauseDestination", method: post, path: destinationsPath + "/{name}/pause", refusals: []int{404},
			summary: "Hold the deliveries of a destination until it is resumed.",
			detail:  "The pause outlives a restart. Attempts in flight go on to their end, and messages are accepted as ever.",
		}, (*Handler).pause),
		answering(operation{
			id: "resumeDestination", method: post, path: destinationsPath + "/{name}/resume", refusals: []int{404},
			summary: "End the pause of a destination.",
		}, (*Handler).resume),
		answering(operation{
			id: "testDestination", method: post, path: destinationsPath + "/{name}/test", refusals: []int{404, 409}, limit: maxSampleBytes,
			lasts:   testTimeout,
			summary: "Send one real request with a sample, and show the whole exchange.",
			detail: "The request takes the path of every attempt: it is rendered, signed and authorized alike, and may go only " +
				"where deliveries may. Nothing is stored, and a pause or an open breaker does not stop it.",
		}, (*Handler).test),
		answering(operation{
			id: "renderDestination", method: post, path: destinationsPath + "/{name}/render", refusals: []int{404, 409, 410, 422}, limit: maxSampleBytes,
			summary: "Show the request of a stored delivery or of a sample, without sending it.",
		}, (*Handler).render),

		answering(operation{
			id: "listDeliveries", method: get, path: deliveriesPath, summary: "The deliveries that pass a filter, the latest accepted first.",
			detail: "A page costs the same wherever it begins. A page of a filter that few pass may have fewer deliveries than asked " +
				"for, or none: there are more as long as next_cursor is not null.",
		}, (*Handler).listDeliveries),
		answering(operation{
			id: "getDelivery", method: get, path: deliveriesPath + "/{id}", refusals: []int{404},
			summary: "A delivery with its message and all its attempts.",
		}, (*Handler).getDelivery),
		answering(operation{
			id: "replayDelivery", method: post, path: deliveriesPath + "/{id}/replay", refusals: []int{404, 409, 410, 429, 507},
			summary: "Begin a new round of attempts, now.",
			detail:  "The webhook-id stays the same, the timestamp is new. A pending delivery begins its next round.",
		}, (*Handler).replay),
		answering(operation{
			id: "cancelDelivery", method: post, path: deliveriesPath + "/{id}/cancel", refusals: []int{404, 409},
			summary: "End a pending delivery, or let go the line behind a blocking one.",
		}, (*Handler).cancel),
		answering(operation{
			id: "retryDelivery", method: post, path: deliveriesPath + "/{id}/retry", refusals: []int{404, 409},
			summary: "Make the next attempt of a pending delivery due now.",
		}, (*Handler).retry),

		answering(operation{
			id: "getMessage", method: get, path: messagesPath + "/{id}", refusals: []int{404},
			summary: "A message with its deliveries.",
		}, (*Handler).getMessage),
		writing(operation{
			id: "getMessageBody", method: get, path: messagesPath + "/{id}/body", refusals: []int{404, 410}, media: rawType,
			summary: "The body of a message, as a download.",
		}, (*Handler).getBody),

		answering(operation{
			id: "replay", method: post, path: replayPath, refusals: []int{409, 429, 507}, lasts: replayTimeout,
			summary: "Replay the ended deliveries that pass a filter, the oldest first.",
			detail: "At most 100,000 in one request, which lasts at most five minutes and ends when the client hangs up. Of more " +
				"than 100 the count must be given, as a dry run has counted it.",
		}, (*Handler).bulkReplay),
		describing[Reload](writing(operation{
			id: "reload", method: post, path: reloadPath, refusals: []int{422},
			summary: "Read the config file again and put it into effect.",
			detail:  "A file with faults changes nothing; the problem lists them all in the member errors.",
		}, (*Handler).reload)),

		sending(operation{
			id: "backup", method: post, path: backupPath, media: rawType, refusals: []int{409, 501, 507}, lasts: backupTimeout,
			summary: "A copy of all that is stored at this moment, as a download for postern restore.",
			detail: "It is made whole on the relay's disk before the first byte is sent. The header Postern-Backup-Counts says what is in " +
				"it (BackupCounts, in JSON). One that ends early is refused by a restore.",
		}, (*Handler).backup),

		writing(operation{
			id: "streamEvents", method: get, path: eventsPath, media: eventsType, refusals: []int{503},
			summary: "What changes, as server-sent events.",
			detail: "Events are delivery (data: Delivery), destination (Destination, at most once a second each), reload (Reload), and " +
				"lagging, after which a stream that was too slow ends. A comment comes every 15 seconds. At most 100 streams at a time.",
		}, (*Handler).events),
		writing(operation{
			id: "getDescription", method: get, path: openAPIPath, media: jsonType, summary: "This description.",
		}, (*Handler).description),
	}
}
