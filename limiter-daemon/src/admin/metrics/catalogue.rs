//! Every metric, in one file: name, labels, unit, help. `docs/metrics.md` is made of it.
//!
//! Labels are bounded by the policy files: routes, rules, policies, backends, reasons. Never an
//! address, a path or a header's value. Where Envoy or its rate limit service has a name for what is
//! counted, it has that name here. Where a metric is `open`, files add to its name or labels.

use super::family::{Chapter, Declared, Family, Kind, catalogue};
use crate::engine::ask::AskStat;
use crate::engine::domain::STATISTICS;
use crate::engine::upstream::{Kind as Ejection, Resource, Stat};

catalogue! {
"The daemon" {
    BUILD_INFO: Gauge "" "limiterd_build_info" ["version", "abi"]
        "1; the version, and that of what the kernel half shares with it.";
    POLICY_RELOADS: Counter "reloads" "limiterd_policy_reloads" ["result"]
        "Reloads of the policy files by result.";
    POLICY_LAST_RELOAD_SUCCESSFUL: Gauge "" "limiterd_policy_last_reload_successful" []
        "1 if the policy files were valid when they were last read.";
    POLICY_WATCHING: Gauge "" "limiterd_policy_watching" []
        "1 if changes of the policy files are noticed; 0: they are read again on SIGHUP only.";
    RUNTIME_PERCENT: Gauge "percent" "limiterd_runtime_percent" ["key"]
        "Settings that may be changed while running, in percent of the requests.";
    ACCESS_LOG_LINES: Counter "lines" "limiterd_access_log_lines" ["result"]
        "Lines of the access log: written, or lost because the queue was full or writing failed.";
    ADMIN_WRITES: Counter "requests" "limiterd_admin_writes" ["outcome"]
        "Requests to the admin listener to change something: done, failed (what was asked for is wrong or could not be done), or refused for who asked.";
    ADMIN_DENIED: Counter "requests" "limiterd_admin_denied" ["reason"]
        "Requests to the admin listener, also to look, that were refused for who asked or how.";
    LOG_LEFT_OUT: Counter "lines" "limiterd_log_lines_left_out" ["module"]
        "Lines of the daemon's own log that were left out, by the module of the code (log: of libraries that use that crate).";
    TRACE_SPANS: Counter "spans" "limiterd_trace_spans" ["result"]
        "Spans: exported, dropped because the queue was full, failed to be sent, or rejected by the collector.";
}
"Clients" {
    DOWNSTREAM_CX: Counter "connections" "limiterd_downstream_cx" [] "Connections accepted.";
    DOWNSTREAM_CX_ACTIVE: Gauge "connections" "limiterd_downstream_cx_active" [] "Connections open.";
    DOWNSTREAM_CX_FULL: Counter "times" "limiterd_downstream_cx_full" []
        "Times that a worker waited with accepting because it had all the connections it may.";
    DOWNSTREAM_ACCEPT_ERRORS: Counter "times" "limiterd_downstream_accept_errors" [] "Times that accept(2) failed.";
    DOWNSTREAM_CX_CLOSED: Counter "connections" "limiterd_downstream_cx_closed" ["reason"]
        "Connections closed by a bound, by the bound.";
    DOWNSTREAM_TUNNELS: Gauge "connections" "limiterd_downstream_tunnels" [] "Upgraded connections open.";
    DOWNSTREAM_RQ: Counter "requests" "limiterd_downstream_rq" ["route", "response_code_class"]
        "Requests answered, by route and class of status.";
    DOWNSTREAM_RQ_UNROUTED: Counter "requests" "limiterd_downstream_rq_unrouted" []
        "Requests that no route took or that are no requests.";
    ADDED_LATENCY: Histogram "seconds" "limiterd_added_latency_seconds" ["decision"]
        "Time from a request's head to the decision of all limits: what limiterd adds before a request is sent on (forwarded) or answered without an upstream (answered).";
    MIRROR_DROPPED: Counter "requests" "limiterd_mirror_dropped" []
        "Copies of requests that no mirror got, because too many were on their way.";
    FAULT_DELAYS: Known "requests" "envoy_http_fault_delays_injected" [] "Requests delayed on purpose.";
    FAULT_ABORTS: Known "requests" "envoy_http_fault_aborts_injected" []
        "Requests answered on purpose in place of the upstream.";
    FAULT_OVERFLOW: Known "requests" "envoy_http_fault_faults_overflow" []
        "Requests not delayed because as many were as may be.";
    FAULT_ACTIVE: Gauge "requests" "envoy_http_fault_active_faults" [] "Requests being delayed.";
}
"Connections that are passed on" {
    TCP_CX: Known "connections" "envoy_tcp_downstream_cx_total" ["envoy_tcp_prefix"]
        "Connections that came to be passed on.";
    TCP_NO_ROUTE: Known "connections" "envoy_tcp_downstream_cx_no_route" ["envoy_tcp_prefix"]
        "Connections closed because no host is for the name that the client asked for, or its destination leads nowhere.";
    TCP_RECEIVED: Known "bytes" "envoy_tcp_downstream_cx_rx_bytes_total" ["envoy_tcp_prefix"]
        "Bytes that came from clients and were passed on.";
    TCP_SENT: Known "bytes" "envoy_tcp_downstream_cx_tx_bytes_total" ["envoy_tcp_prefix"] "Bytes sent to clients.";
    TCP_IDLE_TIMEOUT: Known "connections" "envoy_tcp_idle_timeout" ["envoy_tcp_prefix"]
        "Connections closed because nothing came from either side for too long.";
    TCP_FAILED: Counter "connections" "limiterd_tcp_downstream_cx_failed" ["envoy_tcp_prefix", "reason"]
        "Connections closed because no endpoint could have them, by reason.";
}
"Limits on requests" {
    LOCAL_ENABLED: Known "requests" "envoy_http_local_rate_limit_enabled" ["envoy_local_http_ratelimit_prefix", "route"]
        "Requests that local limits were asked about.";
    LOCAL_OK: Known "requests" "envoy_http_local_rate_limit_ok" ["envoy_local_http_ratelimit_prefix", "route"]
        "Requests under all local limits.";
    LOCAL_RATE_LIMITED: Known "requests" "envoy_http_local_rate_limit_rate_limited" ["envoy_local_http_ratelimit_prefix", "route"]
        "Requests over a local limit, also those that passed because it is in shadow mode.";
    LOCAL_ENFORCED: Known "requests" "envoy_http_local_rate_limit_enforced" ["envoy_local_http_ratelimit_prefix", "route"]
        "Requests refused by a local limit.";
    OVER_LIMIT: Known "requests" "envoy_http_ratelimit_over_limit" ["route"] "Requests refused by a global limit.";
    LOCAL_DECISIONS: Counter "decisions" "limiterd_local_rate_limit" ["rule", "route", "decision"]
        "Decisions of local limits, by rule and route (none: of a shared rule); over_limit counts for the rule that decided.";
    GLOBAL_DECISIONS: Counter "decisions" "limiterd_global_rate_limit" ["rule", "route", "decision"]
        "The same of global limits.";
    CANDIDATE_DECISIONS: Counter "decisions" "limiterd_rate_limit_candidate" ["limit", "rule", "route", "candidate", "decision"]
        "What candidates would have decided in their rule's place.";
    LIMIT_TOKENS: Gauge "tokens" "limiterd_rate_limit_tokens" ["limit", "rule", "route", "candidate"]
        "Tokens of a full bucket, or of a window, of each limit in force; 0: everything is refused.";
    LIMIT_RATE: Gauge "tokens a second" "limiterd_rate_limit_tokens_per_second" ["limit", "rule", "route", "candidate"]
        "Tokens that come back in a second, of each limit in force.";
    REFUNDED: Counter "tokens" "limiterd_rate_limit_refunded_tokens" ["limit", "rule", "route"]
        "Tokens given back, by rule and route.";
    RESPONSE_TOKENS: Counter "tokens" "limiterd_rate_limit_response_tokens" ["limit", "rule", "route"]
        "Tokens taken for responses, by rule and route.";
    UNMETERED: Counter "responses" "limiterd_rate_limit_unmetered_responses" ["limit", "rule", "route"]
        "Responses that a rule charges for and whose cost was not found in them.";
    BUCKETS_CAPACITY: Gauge "buckets" "limiterd_buckets_capacity" [] "Buckets that fit.";
    BUCKETS_LIVE: Gauge "buckets" "limiterd_buckets_live" [] "Buckets that are not full.";
    BUCKETS_REFUSED: Counter "decisions" "limiterd_buckets_refused" []
        "Decisions on an aggregate bucket because no bucket was free for the value.";
}
"Backends" {
    CX_TOTAL: Known "connections" "envoy_cluster_upstream_cx_total" ["envoy_cluster_name", "policy"] "Connections made.";
    CX_CONNECT_FAIL: Known "connections" "envoy_cluster_upstream_cx_connect_fail" ["envoy_cluster_name", "policy"]
        "Connections that could not be made.";
    CX_ATTEMPTS_EXCEEDED: Known "connections" "envoy_cluster_upstream_cx_connect_attempts_exceeded" ["envoy_cluster_name", "policy"]
        "Connections that were passed on and whose attempts at endpoints all failed.";
    CX_OVERFLOW: Known "times" "envoy_cluster_upstream_cx_overflow" ["envoy_cluster_name", "policy"]
        "Times that a connection was wanted and as many were there as may be.";
    CX_MAX_REQUESTS: Known "connections" "envoy_cluster_upstream_cx_max_requests" ["envoy_cluster_name", "policy"]
        "Connections that had all the requests they may.";
    CX_MAX_DURATION: Known "connections" "envoy_cluster_upstream_cx_max_duration_reached" ["envoy_cluster_name", "policy"]
        "Connections that were as old as they may be.";
    RQ_TOTAL: Known "requests" "envoy_cluster_upstream_rq_total" ["envoy_cluster_name", "policy"]
        "Requests sent, retries among them.";
    RQ_XX: Known "requests" "envoy_cluster_upstream_rq_xx" ["envoy_cluster_name", "policy", "envoy_response_code_class"]
        "Answers of the backend, by the first digit of their status.";
    RQ_PENDING_TOTAL: Known "requests" "envoy_cluster_upstream_rq_pending_total" ["envoy_cluster_name", "policy"]
        "Requests that had to wait for a connection.";
    RQ_PENDING_OVERFLOW: Known "requests" "envoy_cluster_upstream_rq_pending_overflow" ["envoy_cluster_name", "policy"]
        "Requests answered with 503 because as much was under way as may be.";
    RQ_PENDING_FAILURE_EJECT: Known "requests" "envoy_cluster_upstream_rq_pending_failure_eject" ["envoy_cluster_name", "policy"]
        "Requests that waited for a connection in vain.";
    RQ_TIMEOUT: Known "requests" "envoy_cluster_upstream_rq_timeout" ["envoy_cluster_name", "policy"]
        "Requests that took longer than they may.";
    RQ_PER_TRY_TIMEOUT: Known "attempts" "envoy_cluster_upstream_rq_per_try_timeout" ["envoy_cluster_name", "policy"]
        "Attempts that took longer than they may.";
    RQ_RETRY: Known "retries" "envoy_cluster_upstream_rq_retry" ["envoy_cluster_name", "policy"] "Retries.";
    RQ_RETRY_SUCCESS: Known "requests" "envoy_cluster_upstream_rq_retry_success" ["envoy_cluster_name", "policy"]
        "Requests that were answered well after a retry.";
    RQ_RETRY_OVERFLOW: Known "retries" "envoy_cluster_upstream_rq_retry_overflow" ["envoy_cluster_name", "policy"]
        "Retries not made because as many were under way as may be.";
    RQ_RETRY_LIMIT_EXCEEDED: Known "requests" "envoy_cluster_upstream_rq_retry_limit_exceeded" ["envoy_cluster_name", "policy"]
        "Requests that had all their retries, the last one in vain.";
    RQ_RETRY_EXPONENTIAL: Known "retries" "envoy_cluster_upstream_rq_retry_backoff_exponential" ["envoy_cluster_name", "policy"]
        "Retries after a pause that grows.";
    RQ_RETRY_RATELIMITED: Known "retries" "envoy_cluster_upstream_rq_retry_backoff_ratelimited" ["envoy_cluster_name", "policy"]
        "Retries after the pause that the answer asked for.";
    RETRY_ABANDONED: Known "requests" "envoy_cluster_retry_or_shadow_abandoned" ["envoy_cluster_name", "policy"]
        "Requests whose body was too long to be kept for a retry.";
    RQ_STALE: Known "requests" "limiterd_upstream_rq_stale" ["envoy_cluster_name", "policy"]
        "Requests sent again because a kept connection turned out to be closed.";
    RQ_ACTIVE: Gauge "requests" "envoy_cluster_upstream_rq_active" ["envoy_cluster_name", "policy"]
        "Requests that have a connection, or are making one.";
    RQ_PENDING_ACTIVE: Gauge "requests" "envoy_cluster_upstream_rq_pending_active" ["envoy_cluster_name", "policy"]
        "Requests that wait for a connection.";
    RQ_RETRY_ACTIVE: Gauge "requests" "envoy_cluster_upstream_rq_retry_active" ["envoy_cluster_name", "policy"]
        "Requests that are being retried.";
    CX_ACTIVE: Gauge "connections" "envoy_cluster_upstream_cx_active" ["envoy_cluster_name", "policy"]
        "Connections open, or being made.";
    RQ_OPEN: Gauge "" "envoy_cluster_circuit_breakers_default_rq_open" ["envoy_cluster_name", "policy"]
        "1 if as many requests are under way as may be: what comes now is refused.";
    RQ_PENDING_OPEN: Gauge "" "envoy_cluster_circuit_breakers_default_rq_pending_open" ["envoy_cluster_name", "policy"]
        "1 if as many requests wait for a connection as may: what comes now is refused.";
    RQ_RETRY_OPEN: Gauge "" "envoy_cluster_circuit_breakers_default_rq_retry_open" ["envoy_cluster_name", "policy"]
        "1 if as many requests are retried as may be: no further one is.";
    CX_OPEN: Gauge "" "envoy_cluster_circuit_breakers_default_cx_open" ["envoy_cluster_name", "policy"]
        "1 if as many connections are there as may be: what comes now waits.";
    BREAKER_LIMIT: Gauge "" "limiterd_circuit_breaker_limit" ["envoy_cluster_name", "policy", "resource"]
        "What may be under way at most: requests, pending requests, retries (of a budget, as it is now), connections.";
    EJECTIONS_TOTAL: Known "ejections" "envoy_cluster_outlier_detection_ejections_enforced_total" ["envoy_cluster_name", "policy"]
        "Endpoints ejected.";
    EJECTIONS_OVERFLOW: Known "times" "envoy_cluster_outlier_detection_ejections_overflow" ["envoy_cluster_name", "policy"]
        "Endpoints not ejected because as many were as may be.";
    EJECTIONS_ACTIVE: Gauge "endpoints" "envoy_cluster_outlier_detection_ejections_active" ["envoy_cluster_name", "policy"]
        "Endpoints ejected now.";
    ENFORCED_5XX: Known "ejections" "envoy_cluster_outlier_detection_ejections_enforced_consecutive_5xx" ["envoy_cluster_name", "policy"]
        "Endpoints ejected for errors in a row.";
    ENFORCED_GATEWAY: Known "ejections" "envoy_cluster_outlier_detection_ejections_enforced_consecutive_gateway_failure" ["envoy_cluster_name", "policy"]
        "Endpoints ejected for errors of a gateway in a row.";
    ENFORCED_LOCAL: Known "ejections" "envoy_cluster_outlier_detection_ejections_enforced_consecutive_local_origin_failure" ["envoy_cluster_name", "policy"]
        "Endpoints ejected because they could not be reached several times in a row.";
    ENFORCED_PERCENTAGE: Known "ejections" "envoy_cluster_outlier_detection_ejections_enforced_failure_percentage" ["envoy_cluster_name", "policy"]
        "Endpoints ejected for their share of failures.";
    DETECTED_5XX: Known "times" "envoy_cluster_outlier_detection_ejections_detected_consecutive_5xx" ["envoy_cluster_name", "policy"]
        "Times that an endpoint had so many errors in a row, ejected or not.";
    DETECTED_GATEWAY: Known "times" "envoy_cluster_outlier_detection_ejections_detected_consecutive_gateway_failure" ["envoy_cluster_name", "policy"]
        "Times that an endpoint had so many errors of a gateway in a row, ejected or not.";
    DETECTED_LOCAL: Known "times" "envoy_cluster_outlier_detection_ejections_detected_consecutive_local_origin_failure" ["envoy_cluster_name", "policy"]
        "Times that an endpoint could not be reached so often in a row, ejected or not.";
    DETECTED_PERCENTAGE: Known "times" "envoy_cluster_outlier_detection_ejections_detected_failure_percentage" ["envoy_cluster_name", "policy"]
        "Times that an endpoint had such a share of failures, ejected or not.";
    MEMBERSHIP_TOTAL: KnownGauge "endpoints" "envoy_cluster_membership_total" ["envoy_cluster_name", "policy"] "Endpoints.";
    MEMBERSHIP_HEALTHY: Gauge "endpoints" "envoy_cluster_membership_healthy" ["envoy_cluster_name", "policy"]
        "Endpoints that are neither ejected nor failed by checks.";
    CHECK_ATTEMPT: Known "checks" "envoy_cluster_health_check_attempt" ["envoy_cluster_name", "policy"] "Checks begun.";
    CHECK_SUCCESS: Known "checks" "envoy_cluster_health_check_success" ["envoy_cluster_name", "policy"] "Checks passed.";
    CHECK_FAILURE: Known "checks" "envoy_cluster_health_check_failure" ["envoy_cluster_name", "policy"] "Checks failed.";
    CHECK_NETWORK_FAILURE: Known "checks" "envoy_cluster_health_check_network_failure" ["envoy_cluster_name", "policy"]
        "Checks failed for want of a connection or of an answer.";
    NOT_ADMITTED: Known "requests" "envoy_http_admission_control_rq_rejected" ["route", "policy"]
        "Requests refused because too many fail.";
    UPDATE_ATTEMPT: Known "lookups" "envoy_cluster_update_attempt" ["envoy_cluster_name", "policy"]
        "Lookups of a backend's names.";
    UPDATE_SUCCESS: Known "lookups" "envoy_cluster_update_success" ["envoy_cluster_name", "policy"]
        "Lookups that found addresses.";
    UPDATE_NO_REBUILD: Known "lookups" "envoy_cluster_update_no_rebuild" ["envoy_cluster_name", "policy"]
        "Lookups that found the addresses that were known.";
    UPDATE_FAILURE: Known "lookups" "envoy_cluster_update_failure" ["envoy_cluster_name", "policy"]
        "Lookups that failed: the last good addresses stay.";
    UPDATE_EMPTY: Known "lookups" "envoy_cluster_update_empty" ["envoy_cluster_name", "policy"]
        "Lookups that found no name or no address: the last good ones stay.";
    ADDRESSES_LEFT_OUT: Counter "addresses" "limiterd_dns_addresses_left_out" ["envoy_cluster_name", "policy"]
        "Addresses beyond the 64 that are used of a name, over all lookups.";
}
"The rate limit service" {
    RLS_TOTAL_HITS: Known "hits" "ratelimit_service_rate_limit_total_hits" ["domain"] open
        "Hits that limits of the rate limit service were asked about; key1, key2 and so on are the levels of the descriptor.";
    RLS_OVER_LIMIT: Known "hits" "ratelimit_service_rate_limit_over_limit" ["domain"] open
        "Hits over a limit, also of limits in shadow mode.";
    RLS_NEAR_LIMIT: Known "hits" "ratelimit_service_rate_limit_near_limit" ["domain"] open
        "Hits beyond four fifths of a limit, or what share is set.";
    RLS_LOCAL_CACHE: Known "hits" "ratelimit_service_rate_limit_over_limit_with_local_cache" ["domain"] open
        "Always 0: there is no such cache, as none is needed.";
    RLS_WITHIN_LIMIT: Known "hits" "ratelimit_service_rate_limit_within_limit" ["domain"] open
        "Hits that were admitted.";
    RLS_SHADOW_MODE: Known "hits" "ratelimit_service_rate_limit_shadow_mode" ["domain"] open
        "Hits over a limit in shadow mode.";
    RLS_LIMIT_TOKENS: Gauge "requests" "limiterd_rls_limit_tokens" ["domain"] open
        "Requests of a full bucket, or of a window, of each limit of the rate limit service in force; 0: everything is refused.";
    RLS_LIMIT_RATE: Gauge "requests a second" "limiterd_rls_limit_tokens_per_second" ["domain"] open
        "Requests that come back in a second, of each limit of the rate limit service in force.";
    RLS_CONFIG_SUCCESS: Known "reloads" "ratelimit_service_config_load_success" []
        "Reloads of the policy files that were valid.";
    RLS_CONFIG_ERROR: Known "reloads" "ratelimit_service_config_load_error" []
        "Reloads of the policy files with errors.";
    RLS_GLOBAL_SHADOW: Known "questions" "ratelimit_service_global_shadow_mode" []
        "Questions that only the shadow mode of the whole service let pass.";
    RLS_DOMAIN_NOT_FOUND: Known "questions" "ratelimit_service_rate_limit_domain_not_found" []
        "Questions about a domain that no file has.";
    RLS_REQUESTS: Known "questions" "ratelimit_service_total_requests" ["grpc_method"] "Questions, by gRPC and JSON.";
    RLS_ERRORS: Known "questions" "ratelimit_service_should_rate_limit_error" ["err_type"]
        "Questions that were answered with an error.";
    RLS_RESPONSE_TIME: Histogram "seconds" "ratelimit_service_response_time_seconds" ["grpc_method"]
        "Time from a question to its answer.";
    RLS_STORE_FAILURE: Counter "descriptors" "limiterd_rls_store_failure_decisions" ["mode"]
        "Descriptors that were decided without the store, by what held instead.";
    RLS_DETAILS_REFUSED: Counter "questions" "limiterd_rls_details_refused" []
        "Questions counted with their limit only, for there was no room for statistics of their values.";
    RLS_CX: Counter "connections" "limiterd_rls_cx" [] "Connections to the rate limit service accepted.";
    RLS_CX_FULL: Counter "times" "limiterd_rls_cx_full" []
        "Times that a thread of the rate limit service waited with accepting because it had all the connections it may.";
    RLS_CX_MUTE: Counter "connections" "limiterd_rls_cx_mute" []
        "Connections to the rate limit service that said nothing, or no TLS, and were closed.";
    RLS_CX_ACTIVE: Gauge "connections" "limiterd_rls_cx_active" [] "Connections to the rate limit service open.";
}
"Rate limit services that filters ask" {
    ASK_OK: Known "questions" "envoy_cluster_ratelimit_ok" ["envoy_cluster_name", "policy"] open
        "Questions to a rate limit service: not over a limit. With a statPrefix: envoy_cluster_ratelimit_PREFIX_ok.";
    ASK_ERROR: Known "questions" "envoy_cluster_ratelimit_error" ["envoy_cluster_name", "policy"] open
        "Questions to a rate limit service that it did not answer. With a statPrefix: envoy_cluster_ratelimit_PREFIX_error.";
    ASK_OVER_LIMIT: Known "questions" "envoy_cluster_ratelimit_over_limit" ["envoy_cluster_name", "policy"] open
        "Questions to a rate limit service: over a limit. With a statPrefix: envoy_cluster_ratelimit_PREFIX_over_limit.";
    ASK_FAILURE_MODE_ALLOWED: Known "requests" "envoy_cluster_ratelimit_failure_mode_allowed" ["envoy_cluster_name", "policy"] open
        "Requests that passed because a rate limit service did not answer. With a statPrefix: envoy_cluster_ratelimit_PREFIX_failure_mode_allowed.";
    ASKED_CONNECTIONS: Gauge "connections" "limiterd_asked_service_connections" ["service"]
        "Connections to a rate limit service that filters ask.";
    ASKED_CONNECT_FAIL: Counter "connections" "limiterd_asked_service_connect_fail" ["service"]
        "Attempts to connect to a rate limit service that failed.";
}
"The store that nodes share" {
    STORE_REQUESTS: Counter "questions" "limiterd_store_requests" ["store", "result"]
        "Questions to the store of global limits by result; not_asked: it has failed too often to be asked.";
    STORE_FAILURE: Counter "limits" "limiterd_store_failure_decisions" ["mode"]
        "Limits that were decided without the store, by what held instead.";
    STORE_REDIRECTIONS: Counter "answers" "limiterd_store_redirections" ["store"]
        "Answers of a cluster's servers that a key is elsewhere, which were followed.";
    STORE_ADJUSTMENTS_LOST: Counter "adjustments" "limiterd_store_adjustments_lost" ["store"]
        "Refunds and costs of responses that did not reach the store.";
    STORE_CONNECTIONS: Gauge "connections" "limiterd_store_connections" ["store"]
        "Connections to the store that are up; one for each worker, each thread of the rate limit service, and server.";
    STORE_STATE: Gauge "" "limiterd_store_state" ["store"]
        "0: the store is asked; 1: a request at a time, to see whether it answers again; 2: it is not asked. Of a cluster its worst server.";
    STORE_LEASES: Gauge "tokens" "limiterd_store_leases" [] "Tokens of leased limits that this node has in hand.";
    LEASE_DECISIONS: Counter "decisions" "limiterd_store_lease_decisions" []
        "Limits that were decided by a lease in hand, without a question to the store.";
    LEASE_TOKENS: Counter "tokens" "limiterd_store_lease_tokens" ["event"]
        "Tokens of leases: taken in advance (prefetched), given back unused (returned), and lost with the window that they were of.";
    LEASE_UNTRACKED: Counter "questions" "limiterd_store_lease_untracked" []
        "Questions about leased limits whose key found no room among those that leases are held of.";
    OVER_LIMIT_MEMORY: Counter "keys" "limiterd_store_over_limit_memory" ["result"]
        "Keys over their limit: requests answered from memory, denials remembered, not remembered for lack of room (full), forgotten because of a refund.";
}
"The fleet and its sentences" {
    FLEET_BLOCKS: Gauge "networks" "limiterd_fleet_blocks" ["scope"] "Networks blocked here, by who blocks them.";
    FLEET_EVENTS: Counter "events" "limiterd_fleet_events" ["event"] "What came of blocks on this node.";
    FLEET_CONNECTED: Gauge "" "limiterd_fleet_connected" []
        "1 if the other nodes can be reached through the store.";
    FLEET_NODES: Gauge "nodes" "limiterd_fleet_nodes" [] "Nodes last seen alive, this one among them.";
    OFFENCES: Counter "offences" "limiterd_escalation_offences" ["policy", "type"]
        "Offences that counted against the address they came from.";
    ESCALATION_DECISIONS: Counter "decisions" "limiterd_escalation_decisions" ["policy", "result"]
        "Times that an address was over the threshold, by what became of it.";
    OFFENDERS: Gauge "addresses" "limiterd_escalation_offenders" [] "Addresses of which offences are remembered.";
    OFFENDERS_FORGOTTEN: Counter "addresses" "limiterd_escalation_offenders_forgotten" ["reason"]
        "Addresses forgotten because as many as may be had offended since.";
}
"The kernel half" {
    XDP_ATTACHED: Gauge "" "limiterd_xdp_attached" ["interface", "mode"]
        "1 for each interface that the XDP program is on.";
    XDP_PACKETS: Counter "packets" "limiterd_xdp_packets" ["policy", "level", "reason", "mode", "verdict"]
        "Packets, by policy, reason and verdict.";
    XDP_LIMIT: Gauge "" "limiterd_xdp_limit" ["policy", "class", "level", "unit"]
        "Connections, packets or bytes of a full bucket, of each network limit in force; class: default, or the rule.";
    XDP_LIMIT_RATE: Gauge "a second" "limiterd_xdp_limit_per_second" ["policy", "class", "level", "unit"]
        "Connections, packets or bytes that come back in a second, of each network limit in force.";
    XDP_SLOTS: Gauge "places" "limiterd_xdp_slots" [] "Places of the table of sources.";
    XDP_SLOTS_USED: Gauge "places" "limiterd_xdp_slots_used" ["state"]
        "Places in use: live holds a bucket that is not full, kept one that is.";
    XDP_SOURCES: Counter "sources" "limiterd_xdp_sources" ["event"]
        "First sights of sources that found a place, took over another's, or were judged by the sketch for want of one; and packets that met a place changing hands.";
    XDP_SAMPLES_LOST: Counter "packets" "limiterd_xdp_samples_lost" []
        "Dropped packets of which no sample was sent: over the cap, or the ring was full.";
    XDP_SENTENCES: Gauge "sentences" "limiterd_xdp_sentences" [] "Sentences being served.";
}
}

/// What an event on the way to a backend is counted as.
#[must_use]
pub const fn of_stat(stat: Stat) -> &'static Family<2> {
    match stat {
        Stat::CxTotal => &CX_TOTAL,
        Stat::CxConnectFail => &CX_CONNECT_FAIL,
        Stat::CxConnectAttemptsExceeded => &CX_ATTEMPTS_EXCEEDED,
        Stat::CxOverflow => &CX_OVERFLOW,
        Stat::CxMaxRequests => &CX_MAX_REQUESTS,
        Stat::CxMaxDuration => &CX_MAX_DURATION,
        Stat::RqTotal => &RQ_TOTAL,
        Stat::RqPendingTotal => &RQ_PENDING_TOTAL,
        Stat::RqPendingOverflow => &RQ_PENDING_OVERFLOW,
        Stat::RqPendingFailureEject => &RQ_PENDING_FAILURE_EJECT,
        Stat::RqTimeout => &RQ_TIMEOUT,
        Stat::RqPerTryTimeout => &RQ_PER_TRY_TIMEOUT,
        Stat::RqRetry => &RQ_RETRY,
        Stat::RqRetrySuccess => &RQ_RETRY_SUCCESS,
        Stat::RqRetryOverflow => &RQ_RETRY_OVERFLOW,
        Stat::RqRetryLimitExceeded => &RQ_RETRY_LIMIT_EXCEEDED,
        Stat::RqRetryBackoffExponential => &RQ_RETRY_EXPONENTIAL,
        Stat::RqRetryBackoffRatelimited => &RQ_RETRY_RATELIMITED,
        Stat::RetryOrShadowAbandoned => &RETRY_ABANDONED,
        Stat::RqStale => &RQ_STALE,
    }
}

/// How many of `resource` are under way, and whether as many are as may be.
#[must_use]
pub const fn of_resource(resource: Resource) -> [&'static Family<2>; 2] {
    match resource {
        Resource::Parallel => [&RQ_ACTIVE, &RQ_OPEN],
        Resource::Pending => [&RQ_PENDING_ACTIVE, &RQ_PENDING_OPEN],
        Resource::Retries => [&RQ_RETRY_ACTIVE, &RQ_RETRY_OPEN],
        Resource::Connections => [&CX_ACTIVE, &CX_OPEN],
    }
}

/// Endpoints ejected for this reason, and found to be worth it.
#[must_use]
pub const fn of_ejection(kind: Ejection) -> [&'static Family<2>; 2] {
    match kind {
        Ejection::Consecutive5xx => [&ENFORCED_5XX, &DETECTED_5XX],
        Ejection::ConsecutiveGatewayFailure => [&ENFORCED_GATEWAY, &DETECTED_GATEWAY],
        Ejection::ConsecutiveLocalOriginFailure => [&ENFORCED_LOCAL, &DETECTED_LOCAL],
        Ejection::FailurePercentage => [&ENFORCED_PERCENTAGE, &DETECTED_PERCENTAGE],
    }
}

/// What came of a question to a rate limit service.
#[must_use]
pub const fn of_ask(stat: AskStat) -> &'static Family<2> {
    match stat {
        AskStat::Ok => &ASK_OK,
        AskStat::Error => &ASK_ERROR,
        AskStat::OverLimit => &ASK_OVER_LIMIT,
        AskStat::FailureModeAllowed => &ASK_FAILURE_MODE_ALLOWED,
    }
}

/// Statistics of limits of the rate limit service, in the order of [`STATISTICS`].
pub const OF_SERVICE: [Family<1>; STATISTICS.len()] = [
    RLS_TOTAL_HITS,
    RLS_OVER_LIMIT,
    RLS_NEAR_LIMIT,
    RLS_LOCAL_CACHE,
    RLS_WITHIN_LIMIT,
    RLS_SHADOW_MODE,
];
