//! What plain tonic (0.14.9) does, and the mesh does not: each a test whose body runs once with either.
//!
//! | | plain tonic | shown by |
//! |---|---|---|
//! | 1 | a deadline that passes is CANCELLED | `calls::an_expired_call_is_told_so` |
//! | 2 | a deadline does not cover connecting | `calls::a_deadline_covers_connecting` |
//! | 3 | a deadline ends with the answer's headers | `calls::a_deadline_covers_the_whole_stream` |
//! | 4 | an old connection gets no GOAWAY; its calls are killed after age and grace | `servers::an_old_connection_is_told_to_go` |
//! | 5 | the balancer ignores load | `balancers::one_slow_backend_of_twenty_costs_nothing` |
//! | 6 | dead endpoints stay picked | `balancers::a_dead_endpoint_costs_no_call` |
//! | 7 | one connection per endpoint, however many calls | `balancers::many_calls_get_several_connections` |
//! | 8 | streams per connection are unlimited | `servers::streams_are_limited` |
//! | 9 | certificates are not loaded again | `tests/interop/tests/reloading.rs`, by `cargo xtask verify` |
//! | 10 | shutdown waits for calls for ever | `servers::a_shutdown_has_a_bound` |
//! | 11 | a message over the limit is OUT_OF_RANGE, and one to be sent has no limit | `servers::a_message_over_the_limit_has_a_code_of_its_own`, `servers::what_nobody_would_take_is_not_sent` |
//! | 12 | a connection that breaks is not always UNAVAILABLE | `calls::a_connection_that_breaks_is_unavailable` |
//!
//! 9 is elsewhere, for tonic's TLS is a feature that nothing else here compiles.

mod balancers;
mod calls;
mod servers;
