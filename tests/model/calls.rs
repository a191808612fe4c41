//! Calls between two vats: answers, pipelines, callbacks, cancellation, reference counts, and order.

use capnp_threads::testing::record;
use capnp_threads::{Capability, Client, Pool};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use super::support::{ask, check, client_in, close, connect, number_in, numbers, object, params, send};

#[test]
fn a_call_is_answered() {
    check(2000, || {
        let pool = Pool::new();
        let vats = connect(Client::null(), numbers(&pool, |n| n + 1));
        assert_eq!(ask(&vats[0].bootstrap::<Client>(), 1).unwrap(), 2);
        close(vats);
    });
}

#[test]
fn pipelined_calls_are_answered() {
    check(1500, || {
        let pool = Pool::new();
        let inner = numbers(&pool, |n| n * 2);
        let outer = object(&pool, move |call| {
            record::write(call.results(), 0, &[inner.clone()]);
            Ok(())
        });
        let vats = connect(Client::null(), outer);
        let sent = send(&vats[0].bootstrap::<Client>(), 0, &[]);
        let inner = sent.pipeline.field(0).client();
        let (first, second) = (send(&inner, 1, &[]), send(&inner, 2, &[]));
        assert_eq!(number_in(&first.wait().unwrap()).unwrap(), 2);
        assert_eq!(number_in(&second.wait().unwrap()).unwrap(), 4);
        assert_eq!(ask(&client_in(&sent.wait().unwrap()).unwrap(), 3).unwrap(), 6);
        drop(inner);
        close(vats);
    });
}

#[test]
fn a_method_calls_back() {
    check(1500, || {
        let pool = Pool::new();
        let caller = object(&pool, |call| {
            let (number, caps) = params(call)?;
            let answer = ask(&caps[0], number)?;
            record::write(call.results(), answer + 1, &[]);
            Ok(())
        });
        let vats = connect(Client::null(), caller);
        let sent = send(&vats[0].bootstrap::<Client>(), 5, &[numbers(&pool, |n| n * 10)]);
        assert_eq!(number_in(&sent.wait().unwrap()).unwrap(), 51);
        close(vats);
    });
}

/// Two threads wait for answers over one connection: one reads, for both, and hands that on.
#[test]
fn threads_that_wait_read_each_others_answers() {
    check(1500, || {
        let pool = Pool::in_place();
        let vats = connect(Client::null(), numbers(&pool, |n| n + 1));
        let client = vats[0].bootstrap::<Client>();
        assert_eq!(ask(&client, 1).unwrap(), 2);
        let other = client.clone();
        let asking = thread::spawn(move || {
            assert_eq!(ask(&other, 2).unwrap(), 3);
            assert_eq!(ask(&other, 3).unwrap(), 4);
        });
        assert_eq!(ask(&client, 4).unwrap(), 5);
        assert_eq!(ask(&client, 5).unwrap(), 6);
        asking.join().unwrap();
        drop(client);
        close(vats);
    });
}

/// A thread that reads stops when its method is canceled: what it waits for never comes.
#[test]
fn a_canceled_method_stops_reading() {
    check(1000, || {
        let pool = Pool::new();
        let asks = object(&pool, |call| {
            let (_, caps) = params(call)?;
            assert_eq!(ask(&caps[0], 0)?, 0);
            // The second is never answered.
            let error = ask(&caps[1], 1).unwrap_err();
            assert!(error.to_string().contains("canceled"), "{error}");
            Ok(())
        });
        let vats = connect(Client::null(), asks);
        let (reached, wait) = shuttle::sync::mpsc::channel();
        let kept = Arc::new(Mutex::new(None));
        let keeps = kept.clone();
        let never = object(&pool, move |call| {
            *keeps.lock().unwrap() = Some(call.defer());
            reached.send(()).unwrap();
            Ok(())
        });
        let caps = [numbers(&pool, |n| n), never];
        let sent = send(&vats[0].bootstrap::<Client>(), 0, &caps);
        drop(caps);
        wait.recv().unwrap();
        drop(sent);
        kept.lock().unwrap().take();
        close(vats);
    });
}

#[test]
fn call_canceled_while_it_returns_leaves_nothing() {
    check(1500, || {
        let pool = Pool::new();
        let maker = object(&pool, {
            let pool = pool.clone();
            move |call| {
                record::write(call.results(), 0, &[numbers(&pool, |n| n)]);
                Ok(())
            }
        });
        let vats = connect(Client::null(), maker);
        let bootstrap = vats[0].bootstrap::<Client>();
        let (first, second) = (send(&bootstrap, 0, &[]), send(&bootstrap, 1, &[]));
        let canceling = thread::spawn(move || drop(first));
        assert_eq!(ask(&client_in(&second.wait().unwrap()).unwrap(), 3).unwrap(), 3);
        canceling.join().unwrap();
        drop(bootstrap);
        close(vats);
    });
}

#[test]
fn import_dropped_while_it_is_received_again_stays_usable() {
    check(1500, || {
        let pool = Pool::new();
        let inner = numbers(&pool, |n| n);
        let outer = object(&pool, move |call| {
            record::write(call.results(), 0, &[inner.clone()]);
            Ok(())
        });
        let vats = connect(Client::null(), outer);
        let bootstrap = vats[0].bootstrap::<Client>();
        let import = client_in(&send(&bootstrap, 0, &[]).wait().unwrap()).unwrap();
        let dropping = thread::spawn(move || drop(import));
        let again = client_in(&send(&bootstrap, 0, &[]).wait().unwrap()).unwrap();
        assert_eq!(ask(&again, 9).unwrap(), 9);
        dropping.join().unwrap();
        drop((again, bootstrap));
        close(vats);
    });
}

/// An object that writes down the numbers that come, and the numbers.
fn recorder(pool: &Pool) -> (Client, Arc<Mutex<Vec<u64>>>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let recorded = all.clone();
    let recorder = numbers(pool, move |n| {
        recorded.lock().unwrap().push(n);
        n
    });
    (recorder, all)
}

/// Numbers of each of two senders are in order; the sender is in the tens.
fn assert_in_order(all: &Mutex<Vec<u64>>, each: u64) {
    let all = all.lock().unwrap();
    for sender in [10, 20] {
        let of_sender: Vec<u64> = all.iter().filter(|n| **n / 10 * 10 == sender).map(|n| n % 10).collect();
        assert!(of_sender.iter().copied().eq(0..each), "{all:?}");
    }
}

#[test]
fn order_is_kept_through_an_embargo() {
    check(1500, || {
        let pool = Pool::new();
        let echo = object(&pool, |call| {
            let caps = params(call)?.1;
            record::write(call.results(), 0, &caps);
            Ok(())
        });
        let vats = connect(Client::null(), echo);
        let (recorder, all) = recorder(&pool);
        let sent = send(&vats[0].bootstrap::<Client>(), 0, &[recorder]);
        let promise = sent.pipeline.field(0).client();
        let send_all = |sender: u64| {
            let promise = promise.clone();
            thread::spawn(move || {
                let sent: Vec<_> = (0..3).map(|n| send(&promise, sender + n, &[])).collect();
                sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
            })
        };
        let senders = [send_all(10), send_all(20)];
        drop((promise, sent));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_in_order(&all, 3);
        close(vats);
    });
}

#[test]
fn calls_during_the_fulfillment_of_a_promise_arrive_in_order() {
    check(4000, || {
        let pool = Pool::new();
        let (recorder, all) = recorder(&pool);
        let (promise, fulfiller) = Client::promise();
        let send_all = |sender: u64| {
            let promise = promise.clone();
            thread::spawn(move || {
                let sent: Vec<_> = (0..4).map(|n| send(&promise, sender + n, &[])).collect();
                sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
            })
        };
        let senders = [send_all(10), send_all(20)];
        fulfiller.fulfill(recorder);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_in_order(&all, 4);
    });
}
