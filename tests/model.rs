//! Whole connections under the model checker shuttle: each scenario runs under many schedules of all its threads,
//! the connections' own among them. A schedule in which some thread never ends is a failure, and so is a wrong
//! result. Time stands still, so nothing is saved by a time-out.
//!
//! The scenarios run when everything is built with `RUSTFLAGS="--cfg shuttle"`. A failure prints its schedule,
//! which `shuttle::replay` takes.

#[cfg(shuttle)]
#[path = "model/calls.rs"]
mod calls;
#[cfg(shuttle)]
#[path = "model/endings.rs"]
mod endings;
#[cfg(shuttle)]
#[path = "model/objects.rs"]
mod objects;
#[cfg(shuttle)]
#[path = "model/support.rs"]
mod support;

/// Without the model checker nothing here can be checked but that it is not there.
#[cfg(not(shuttle))]
#[test]
fn models_run_under_cfg_shuttle() {
    use capnp_threads::{Call, Capability, Client, Pool, Result, Server};

    struct Answers;
    impl Server for Answers {
        fn dispatch(&self, _call: &mut Call) -> Result<()> {
            assert!(std::thread::current().name().is_some_and(|name| name.starts_with("capnp-")));
            Ok(())
        }
    }
    let answer = Client::with_pool(Answers, &Pool::new()).request(1, 1).send().wait();
    assert!(answer.is_ok(), "methods run on threads of the system, not of a model checker");
}
