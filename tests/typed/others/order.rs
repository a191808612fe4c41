//! Order: calls ahead and behind, around embargoes, and of streams of two kinds.

use std::sync::atomic::{AtomicU32, Ordering};

use capnp_threads::{Capability, Error, Exception, LocalServer, RemotePromise, Result, Stream};
use crossbeam_channel::{unbounded, Receiver};

use super::harbour::*;
use crate::support::{offered, why, Setting, Soon, DEADLINE};

in_each_setting!(
    calls_do_not_overtake_those_made_ahead,
    the_server_is_found_behind_an_embargo,
    a_promise_that_breaks_breaks_all_calls_on_it,
    calls_on_null_do_not_end_the_connection,
    two_streaming_methods_and_a_plain_one,
    a_streaming_call_that_fails_fails_what_follows,
    a_stream_is_given_up,
);

type Counted = RemotePromise<counter::count_results::Owned>;

fn count(counter: &counter::Client, expected: u32) -> Counted {
    counter.count(|mut params| params.set_expected(expected))
}

fn number(call: Counted) -> u32 {
    call.soon().unwrap().get().unwrap().get_number()
}

fn harbour(ship: &ship::Client) -> harbour::Client {
    ship.harbour().pipeline.get().get_harbour()
}

/// Calls `mine` through what the harbour echoes: before, while and after it is known what that is.
fn around_an_echo(harbour: &harbour::Client, mine: &counter::Client) -> (Vec<Counted>, counter::Client) {
    let early = count(&harbour.clone().into(), 0);
    let echo = harbour.echo(|mut params| params.set_counter(mine.clone()));
    let ahead = echo.pipeline.get().get_counter();
    let mut calls = vec![count(&ahead, 0), count(&ahead, 1)];
    early.soon().unwrap();
    calls.push(count(&ahead, 2));
    let echoed = echo.soon().unwrap().get().unwrap().get_counter().unwrap();
    calls.extend((3..6).map(|expected| count(&ahead, expected)));
    calls.extend((6..9).map(|expected| count(&echoed, expected)));
    (calls, ahead)
}

fn calls_do_not_overtake_those_made_ahead(setting: Setting) {
    let (object, _) = boat();
    offered(setting, object, |ship| {
        let mine = counter::Client::new(Turnstile::default());
        let (calls, ahead) = around_an_echo(&harbour(&ship), &mine);
        let numbers: Vec<u32> = calls.into_iter().map(number).collect();
        assert_eq!(numbers, (0..9).collect::<Vec<_>>());
        assert_eq!(ahead.resolve().unwrap(), mine);
    });
}

/// Echoes when it is told to.
struct Hesitant(Receiver<()>);

impl counter::Server for Hesitant {}

impl harbour::Server for Hesitant {
    fn echo(&self, params: harbour::EchoParams, mut results: harbour::EchoResults<'_>) -> Result<()> {
        self.0.recv_timeout(DEADLINE).expect("told to go on");
        results.get().set_counter(params.get()?.get_counter()?);
        Ok(())
    }
}

fn the_server_is_found_behind_an_embargo(setting: Setting) {
    let (tell, told) = unbounded();
    offered(setting, harbour::Client::new(Hesitant(told)), |harbour| {
        let mine = counter::Client::new(Turnstile::default());
        let echo = harbour.echo(|mut params| params.set_counter(mine.clone()));
        let ahead = echo.pipeline.get().get_counter();
        let calls: Vec<_> = (0..3).map(|expected| count(&ahead, expected)).collect();
        assert!(matches!(ahead.try_local_server::<Turnstile>(), LocalServer::NotYet));
        tell.send(()).unwrap();
        echo.soon().unwrap();
        let server = ahead.resolve().unwrap().wait_local_server::<Turnstile>().unwrap().unwrap();
        // The calls that took the long way are there already: one that takes no way at all comes behind them.
        assert_eq!(number(count(&mine, 3)), 3);
        for (expected, call) in (0..).zip(calls) {
            assert_eq!(number(call), expected);
        }
        assert_eq!(server.count(), 4);
    });
}

fn a_promise_that_breaks_breaks_all_calls_on_it(setting: Setting) {
    let (object, _) = boat();
    offered(setting, object, |ship| {
        let harbour = harbour(&ship);
        let (promise, fulfiller) = counter::Client::promise();
        let (calls, _) = around_an_echo(&harbour, &promise);
        assert!(calls.iter().all(|call| !call.is_ready()));
        fulfiller.reject(Exception::failed("torn down"));
        for call in calls {
            assert!(why(call.soon()).contains("torn down"));
        }
        number(count(&harbour.into(), 0));
    });
}

fn calls_on_null_do_not_end_the_connection(setting: Setting) {
    let (object, _) = boat();
    offered(setting, object, |ship| {
        let harbour = harbour(&ship);
        let nowhere = harbour.nowhere();
        let ahead = counter::Client::from(nowhere.pipeline.get().get_nowhere());
        let before = count(&ahead, 0);
        let response = nowhere.soon().unwrap();
        assert!(!response.get().unwrap().has_nowhere());
        let after = count(&ahead, 1);
        assert!(before.soon().is_err() && after.soon().is_err());
        assert!(ahead.is_null());
        number(count(&harbour.into(), 0));
    });
}

/// Weighs what comes along; ore of weight 13 breaks it.
#[derive(Default)]
struct Scales {
    coal: AtomicU32,
    ore: AtomicU32,
}

impl belt::Server for Scales {
    fn coal(&self, params: belt::CoalParams, _: belt::CoalResults<'_>) -> Result<()> {
        self.coal.fetch_add(params.get()?.get_weight(), Ordering::SeqCst);
        Ok(())
    }

    fn ore(&self, params: belt::OreParams, _: belt::OreResults<'_>) -> Result<()> {
        match params.get()?.get_weight() {
            13 => Err(Error::failed("broken")),
            weight => {
                self.ore.fetch_add(weight, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    fn weigh(&self, _: belt::WeighParams, mut results: belt::WeighResults<'_>) -> Result<()> {
        let mut results = results.get();
        results.set_coal(self.coal.load(Ordering::SeqCst));
        results.set_ore(self.ore.load(Ordering::SeqCst));
        Ok(())
    }
}

fn weigh(belt: &belt::Client) -> (u32, u32) {
    let weighed = belt.weigh().soon().unwrap();
    let weighed = weighed.get().unwrap();
    (weighed.get_coal(), weighed.get_ore())
}

fn two_streaming_methods_and_a_plain_one(setting: Setting) {
    offered(setting, belt::Client::new(Scales::default()), |belt| {
        let stream = Stream::new();
        belt.coal(&stream, |mut params| params.set_weight(100)).unwrap();
        belt.ore(&stream, |mut params| params.set_weight(20)).unwrap();
        belt.coal(&stream, |mut params| params.set_weight(3)).unwrap();
        assert_eq!(weigh(&belt), (103, 20));
        belt.ore(&stream, |mut params| params.set_weight(1)).unwrap();
        stream.finish().unwrap();
        assert_eq!(weigh(&belt), (103, 21));
    });
}

fn a_streaming_call_that_fails_fails_what_follows(setting: Setting) {
    offered(setting, belt::Client::new(Scales::default()), |belt| {
        let stream = Stream::new();
        belt.coal(&stream, |mut params| params.set_weight(1)).unwrap();
        belt.ore(&stream, |mut params| params.set_weight(13)).unwrap();
        assert!(why(stream.finish()).contains("broken"));
        assert!(why(belt.coal(&stream, |mut params| params.set_weight(50))).contains("broken"));
        assert!(why(belt.weigh().soon()).contains("an earlier streaming call failed"));
    });
}

fn a_stream_is_given_up(setting: Setting) {
    offered(setting, belt::Client::new(Scales::default()), |belt| {
        let stream = Stream::new();
        for _ in 0..10 {
            belt.coal(&stream, |mut params| params.set_weight(2)).unwrap();
        }
        // Its calls go on.
        drop(stream);
        assert_eq!(weigh(&belt), (20, 0));
    });
}
