//! A peer that makes room, or goes, while the limit on what it may have us hold is reached.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

use capnp_threads::transport::{TraceOptions, Transport};
use capnp_threads::{Call, Client, Exception, ExceptionKind, Limits, Result, Threads, Vat, WaitError};
use crossbeam_channel::{unbounded, Receiver};

use crate::support::{answer, ask, echo, failure, limits, object, send, soon, tcp_pair, text, Two};

/// Runs a test over each wire, with each way to drive the stages of the vat that offers an object. One call is as many as
/// that vat has in service.
fn everywhere(change: impl Fn(&mut Limits), offered: impl Fn() -> Client, test: impl Fn(Two)) {
    let theirs = limits(|l| {
        l.call_words = 1;
        change(l);
    });
    for threads in [Threads::Lending, Threads::Strict] {
        let (tcp_here, tcp_there) = tcp_pair();
        let (unix_here, unix_there) = UnixStream::pair().unwrap();
        let tcp = [tcp_here, tcp_there].map(|socket| Transport::tcp(socket, &theirs).unwrap());
        let unix = [unix_here, unix_there].map(|socket| Transport::unix(socket, &theirs).unwrap());
        let (here, there) = Transport::in_memory();
        let (traced_here, traced_there) = Transport::in_memory();
        let traced = traced_there.traced(|_| {}, TraceOptions::default());
        for ends in [tcp, unix, [here, there], [traced_here, traced]] {
            let there = Vat::new().limits(theirs.clone()).threads(threads);
            test(Two::over(ends, Vat::new(), there, &offered()));
        }
    }
}

/// An object whose calls wait until they are canceled, and what happens to them.
fn waits_for_cancellation() -> (Client, Receiver<String>) {
    let (tell, told) = unbounded();
    let object = object(move |call| {
        call.allow_next();
        let text = text(call)?;
        tell.send(format!("{text} entered")).unwrap();
        call.cancellation().wait()?;
        tell.send(format!("{text} canceled")).unwrap();
        Ok(())
    });
    (object, told)
}

#[test]
fn a_finish_is_read_while_calls_are_at_the_limit() {
    let (waits, told) = waits_for_cancellation();
    everywhere(
        |_| {},
        || waits.clone(),
        |two| {
            for _ in 0..3 {
                let call = send(&two.remote, "1");
                assert_eq!(soon(&told), "1 entered");
                drop(call);
                assert_eq!(soon(&told), "1 canceled");
            }
            two.settle();
        },
    );
}

/// A Finish may be behind calls that there is no room for. Those are refused after `room_timeout`, so that it is
/// reached.
#[test]
fn a_finish_behind_calls_without_room_is_read() {
    let (waits, told) = waits_for_cancellation();
    everywhere(
        |l| l.room_timeout = Some(Duration::ZERO),
        || waits.clone(),
        |two| {
            let first = send(&two.remote, "1");
            assert_eq!(soon(&told), "1 entered");
            let refused: Vec<_> = (0..100).map(|_| send(&two.remote, "refused")).collect();
            drop(first);
            assert_eq!(soon(&told), "1 canceled");
            for call in refused {
                let why = failure(answer(call));
                assert_eq!(why.kind(), ExceptionKind::Overloaded);
                assert_eq!(why.reason(), "too many calls are in service");
            }
            two.settle();
            // There is room again, once the method has let go of its params.
            let mut next = send(&two.remote, "2");
            let entered = loop {
                if let Ok(entered) = told.try_recv() {
                    break entered;
                }
                next = match next.try_take() {
                    Ok(_) => panic!("the call did not fail"),
                    Err(WaitError::Failed(why)) => {
                        assert_eq!(why.kind(), ExceptionKind::Overloaded);
                        send(&two.remote, "2")
                    }
                    Err(WaitError::Pending(next)) => next,
                };
            };
            assert_eq!(entered, "2 entered");
            drop(next);
            assert_eq!(soon(&told), "2 canceled");
        },
    );
}

/// Gives keepers, which keep the params that they are called with for as long as they live.
fn keepers() -> Client {
    let echo = echo();
    object(move |call: &mut Call| {
        if text(call)? != "keeper" {
            return echoed(&echo, call);
        }
        let kept = Mutex::new(Vec::new());
        let keeper = object(move |call| {
            kept.lock().unwrap().push(call.params().clone());
            Ok(())
        });
        call.results().set_as_capability(Box::new(keeper));
        Ok(())
    })
}

fn echoed(echo: &Client, call: &mut Call) -> Result<()> {
    let text = ask(echo, &text(call)?)?;
    Ok(call.results().set_as(&*text)?)
}

#[test]
fn a_release_is_read_while_calls_are_at_the_limit() {
    everywhere(
        |_| {},
        keepers,
        |two| {
            let response = answer(send(&two.remote, "keeper")).unwrap();
            let keeper: Client = response.get().unwrap().get_as_capability().unwrap();
            drop(response);
            answer(send(&keeper, "kept")).unwrap();
            drop(keeper);
            assert_eq!(ask(&two.remote, "there is room").unwrap(), "there is room");
        },
    );
}

/// Has the peer leave calls unread and then go in some way, and gives why the connection ended.
fn goes(go: impl Fn(&Two)) {
    let (waits, told) = waits_for_cancellation();
    everywhere(
        |l| l.room_timeout = None,
        || waits.clone(),
        |two| {
            let _calls: Vec<_> = (0..50).map(|n| send(&two.remote, &n.to_string())).collect();
            assert_eq!(soon(&told), "0 entered");
            go(&two);
            assert_eq!(soon(&told), "0 canceled");
            two.there.wait_closed().unwrap();
            assert!(told.is_empty(), "the others are not begun");
        },
    );
}

#[test]
fn a_peer_that_closes_is_noticed_while_calls_are_at_the_limit() {
    goes(|two| two.here.close(Duration::ZERO).unwrap());
}

#[test]
fn a_peer_that_aborts_is_noticed_and_heard_while_calls_are_at_the_limit() {
    goes(|two| {
        two.here.abort(Exception::failed("had enough"));
        let why = two.there.wait_closed().unwrap().to_string();
        assert!(why.contains("had enough"), "{why}");
    });
}
