//! What typed clients are besides their methods: null, broken, promised, equal, and of a server of this vat.

use capnp_threads::{Capability, Client, ClientFulfiller, Exception, ExceptionKind, LocalServer, Pool};
use crossbeam_channel::unbounded;

use crate::generated::inherit_capnp::{duck, living, named, quiet, swimmer, walker};
use crate::support::{offered, why, Setting, Soon};
use crate::work::{add, deferred, said, silent, stranger, sum_in, worker, Event, Worker};

in_each_setting!(
    a_promise_client_holds_calls_until_it_is_fulfilled,
    a_rejected_promise_breaks_its_calls,
    a_dropped_promise_breaks_its_calls,
    a_promise_is_fulfilled_with_another,
    a_promise_is_given_away_before_it_is_fulfilled,
    clients_are_equal_by_object,
    null_clients_travel,
    broken_clients_travel,
    the_server_of_a_client_is_found,
    methods_run_on_a_pool_of_their_own,
    the_last_client_drops_the_server,
);

fn a_promise_client_holds_calls_until_it_is_fulfilled(setting: Setting) {
    offered(setting, silent(), |worker| {
        let (promise, fulfiller): (worker::Client, ClientFulfiller<worker::Client>) = Capability::promise();
        assert!(promise.is_promise());
        let sums: Vec<_> = (0..3).map(|i| promise.add(|mut params| params.set_a(i))).collect();
        assert!(sums.iter().all(|sum| !sum.is_ready()));
        fulfiller.fulfill(worker.clone());
        for (i, sum) in sums.into_iter().enumerate() {
            assert_eq!(sum_in(sum.soon().unwrap()), i as i64);
        }
        assert_eq!(promise, worker);
        assert_eq!(promise.resolve().unwrap(), worker.resolve().unwrap());
        assert_eq!(add(&promise, 5, 5).unwrap(), 10);
    });
}

fn a_rejected_promise_breaks_its_calls(setting: Setting) {
    offered(setting, silent(), |worker| {
        let (promise, fulfiller) = worker::Client::promise();
        let sum = promise.add(|_| ());
        let called = worker.call(|mut params| params.set_callback(promise.clone()));
        fulfiller.reject(Exception::overloaded("not today"));
        for error in [sum.soon().unwrap_err(), called.soon().unwrap_err(), promise.resolve().unwrap_err()] {
            assert_eq!(error.kind(), ExceptionKind::Overloaded);
            assert!(error.to_string().contains("not today"), "{error}");
        }
        assert_eq!(promise.broken_reason().unwrap().kind(), ExceptionKind::Overloaded);
        assert!(!promise.is_promise());
    });
}

fn a_dropped_promise_breaks_its_calls(setting: Setting) {
    offered(setting, silent(), |worker| {
        let (promise, fulfiller) = worker::Client::promise();
        let sum = promise.add(|_| ());
        let called = worker.call(|mut params| params.set_callback(promise));
        drop(fulfiller);
        assert!(why(sum.soon()).contains("dropped"));
        assert!(why(called.soon()).contains("dropped"));
    });
}

fn a_promise_is_fulfilled_with_another(setting: Setting) {
    offered(setting, silent(), |worker| {
        let (first, first_fulfiller) = worker::Client::promise();
        let (second, second_fulfiller) = worker::Client::promise();
        let sum = first.add(|mut params| params.set_b(9));
        first_fulfiller.fulfill(second.clone());
        assert!(first.is_promise());
        assert_eq!(first, second);
        second_fulfiller.fulfill(worker.clone());
        assert_eq!(sum_in(sum.soon().unwrap()), 9);
        assert_eq!(first, worker);
        // To itself: that breaks it.
        let (itself, fulfiller) = worker::Client::promise();
        fulfiller.fulfill(itself.clone());
        assert!(itself.resolve().is_err());
        assert!(add(&itself, 1, 1).is_err());
    });
}

fn a_promise_is_given_away_before_it_is_fulfilled(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let (promise, fulfiller) = worker::Client::promise();
        // The object has it, and then gives it back.
        worker.keep(|mut params| params.set_worker(promise)).soon().unwrap();
        let kept = worker.keep(|mut params| params.set_worker(Capability::null())).soon().unwrap();
        let kept = kept.get().unwrap().get_kept().unwrap();
        let sum = kept.add(|mut params| params.set_a(30));
        let mine = silent();
        fulfiller.fulfill(mine.clone());
        assert_eq!(sum_in(sum.soon().unwrap()), 30);
        assert_eq!(kept.resolve().unwrap(), mine);
        assert!(told.is_empty());
    });
}

fn clients_are_equal_by_object(setting: Setting) {
    offered(setting, silent(), |worker| {
        let copy = worker.clone();
        assert_eq!(worker, copy);
        let other = worker.next().soon().unwrap().get().unwrap().get_worker().unwrap();
        assert_ne!(worker, other);
        assert_ne!(worker, worker::Client::null());
        assert_eq!(worker::Client::null(), worker::Client::null());
        assert_eq!(worker.clone().cast_to::<stranger::Client>().cast_to::<worker::Client>(), worker);
        assert_eq!(format!("{worker:?}"), format!("{:?}", worker.as_ref()));
    });
}

fn null_clients_travel(setting: Setting) {
    offered(setting, silent(), |worker| {
        let null = worker::Client::null();
        assert!(null.is_null());
        assert!(null.broken_reason().is_none());
        assert_eq!(null.add(|_| ()).soon().unwrap_err().kind(), ExceptionKind::Failed);
        worker.keep(|mut params| params.set_worker(null)).soon().unwrap();
        let kept = worker.keep(|mut params| params.set_worker(silent()));
        let ahead = kept.pipeline.get().get_kept();
        let kept = kept.soon().unwrap().get().unwrap().get_kept().unwrap();
        assert!(kept.is_null());
        assert!(ahead.resolve().unwrap().is_null());
        assert!(add(&ahead, 0, 0).is_err());
        worker.keep(|mut params| params.set_worker(Capability::null())).soon().unwrap();
    });
}

fn broken_clients_travel(setting: Setting) {
    offered(setting, silent(), |worker| {
        let broken = worker::Client::broken(Exception::overloaded("worn out"));
        assert_eq!(broken.broken_reason().unwrap().reason(), "worn out");
        assert!(!broken.is_null());
        assert!(broken.resolve().is_err());
        worker.keep(|mut params| params.set_worker(broken)).soon().unwrap();
        let kept = worker.keep(|mut params| params.set_worker(Capability::null())).soon().unwrap();
        let kept = kept.get().unwrap().get_kept().unwrap();
        let error = add(&kept, 0, 0).unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Overloaded);
        assert!(error.to_string().contains("worn out"), "{error}");
        assert!(!kept.is_null());
    });
}

struct Drake;

impl living::Server for Drake {}
impl named::Server for Drake {}
impl walker::Server for Drake {}
impl swimmer::Server for Drake {}
impl duck::Server for Drake {}
impl quiet::Server for Drake {}

fn the_server_of_a_client_is_found(setting: Setting) {
    offered(setting, duck::Client::new(Drake), |drake| {
        // Over a connection it is not of this vat.
        let here = !setting.is_remote();
        let drake = drake.resolve().unwrap();
        assert_eq!(drake.wait_local_server::<Drake>().unwrap().is_some(), here);
        assert_eq!(living::Client::from(drake.clone()).wait_local_server::<Drake>().unwrap().is_some(), here);
        assert!(drake.wait_local_server::<Worker>().unwrap().is_none());
    });
    offered(setting, silent(), |worker| {
        let mine = duck::Client::new(Drake);
        let upcast = named::Client::from(walker::Client::from(mine.clone()));
        assert!(upcast.wait_local_server::<Drake>().unwrap().is_some());
        assert!(upcast.wait_local_server::<Worker>().unwrap().is_none());
        assert!(Client::from(mine.clone()).wait_local_server::<Drake>().unwrap().is_some());
        let (promise, fulfiller) = duck::Client::promise();
        assert!(matches!(promise.try_local_server::<Drake>(), LocalServer::NotYet));
        fulfiller.fulfill(mine.clone());
        assert!(promise.wait_local_server::<Drake>().unwrap().is_some());
        assert!(swimmer::Client::from(promise).wait_local_server::<Drake>().unwrap().is_some());
        assert!(duck::Client::null().wait_local_server::<Drake>().unwrap().is_none());
        assert!(duck::Client::broken(Exception::failed("")).wait_local_server::<Drake>().is_err());
        // Kept elsewhere and given back, it is ours again.
        worker.keep(|mut params| params.set_worker(mine.clone().cast_to())).soon().unwrap();
        let kept = worker.keep(|mut params| params.set_worker(Capability::null())).soon().unwrap();
        let kept = kept.get().unwrap().get_kept().unwrap().resolve().unwrap();
        assert!(kept.wait_local_server::<Drake>().unwrap().is_some());
        assert_eq!(kept.cast_to::<duck::Client>(), mine);
    });
}

fn methods_run_on_a_pool_of_their_own(setting: Setting) {
    let pool = Pool::with_limit(1);
    let (events, told) = unbounded();
    let object = worker::Client::with_pool(Worker::new(&events), &pool);
    assert_eq!(pool.threads(), 0);
    offered(setting, object, |worker| {
        let ahead = worker.ahead();
        let Event::Ahead(go) = (&told).soon() else { panic!("another event") };
        assert_eq!(pool.threads(), 1);
        go.send(()).unwrap();
        ahead.soon().unwrap();
        // No thread is left for a call that its method waits for.
        let callback = worker::Client::with_pool(Worker::new(&events), &pool);
        let called = worker.call(|mut params| params.set_callback(callback)).soon().unwrap_err();
        assert_eq!(called.kind(), ExceptionKind::Overloaded);
        assert_eq!(add(&worker, 1, 1).unwrap(), 2);
    });
}

fn the_last_client_drops_the_server(setting: Setting) {
    offered(setting, silent(), |worker| {
        let (events, told) = unbounded();
        let mine = worker::Client::new(Worker::new(&events));
        worker.keep(|mut params| params.set_worker(mine.clone())).soon().unwrap();
        let upcast = Client::from(mine.clone());
        drop((mine, upcast));
        assert!(told.is_empty());
        worker.keep(|mut params| params.set_worker(Capability::null())).soon().unwrap();
        assert!(matches!((&told).soon(), Event::Dropped));
    });
    // What a deferred call holds is let go with it.
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        crate::work::answer(deferred(&told), "over");
        assert_eq!(said(&later.soon().unwrap()), "over");
    });
}
