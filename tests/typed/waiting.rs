//! The ways to wait for an answer, and to give one up.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use capnp_threads::{Cancel, ExceptionKind, Result};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::support::{offered, why, Setting, Soon, DEADLINE};
use crate::work::{add, answer, deferred, said, sum_in, worker, Event};

in_each_setting!(
    wait_gives_the_response,
    a_wait_that_is_too_short_gives_the_promise_back,
    a_response_is_taken_once_it_is_there,
    a_callback_is_called_with_the_response,
    a_channel_brings_the_response,
    a_mapped_promise_gives_what_is_made_of_the_response,
    a_promise_is_a_future,
    many_futures_on_one_executor,
    a_timeout_cancels_the_call,
    an_answer_in_time_is_no_timeout,
    dropping_a_promise_cancels_the_call,
    dropping_a_client_cancels_nothing,
    what_a_promise_became_cancels_the_call,
    a_canceled_method_stops_waiting,
    an_answered_call_is_not_canceled,
);

fn wait_gives_the_response(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let sum = worker.add(|mut params| params.set_a(5));
        assert_eq!(sum_in(sum.wait().unwrap()), 5);
        let later = worker.later(|_| ());
        answer(deferred(&told), "now");
        assert_eq!(said(&later.wait().unwrap()), "now");
    });
}

fn a_wait_that_is_too_short_gives_the_promise_back(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        let duty = deferred(&told);
        let later = later.wait_timeout(Duration::ZERO).unwrap_err().into_pending().unwrap();
        let later = later.wait_until(Instant::now()).unwrap_err().into_pending().unwrap();
        answer(duty, "at last");
        assert_eq!(said(&later.wait_timeout(DEADLINE).unwrap()), "at last");
    });
}

fn a_response_is_taken_once_it_is_there(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        let duty = deferred(&told);
        assert!(!later.is_ready());
        let later = later.try_take().unwrap_err().into_pending().unwrap();
        answer(duty, "there");
        // A call that comes behind it has been answered: so has this one.
        add(&worker, 0, 0).unwrap();
        assert!(later.is_ready());
        assert_eq!(said(&later.try_take().unwrap()), "there");
    });
}

fn a_callback_is_called_with_the_response(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let (sender, called) = unbounded();
        let early = sender.clone();
        worker.later(|_| ()).on_ready(move |response| early.send(response.map(|r| said(&r))).unwrap());
        answer(deferred(&told), "called back");
        assert_eq!((&called).soon().unwrap(), "called back");
        // Registered when it is there already.
        let later = worker.later(|_| ());
        deferred(&told).fail(capnp_threads::Exception::failed("no"));
        add(&worker, 0, 0).unwrap();
        later.on_ready(move |response| sender.send(response.map(|r| said(&r))).unwrap());
        assert!(why((&called).soon()).contains("no"));
    });
}

fn a_channel_brings_the_response(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let channels = [worker.later(|_| ()).into_channel(), worker.later(|_| ()).into_channel()];
        let first = deferred(&told);
        answer(deferred(&told), "second");
        crossbeam_channel::select! {
            recv(channels[0]) -> _ => panic!("the first was not answered"),
            recv(channels[1]) -> response => assert_eq!(said(&response.unwrap().unwrap()), "second"),
            default(DEADLINE) => panic!("no answer"),
        }
        answer(first, "first");
        assert_eq!(said(&(&channels[0]).soon().unwrap()), "first");
    });
}

fn a_mapped_promise_gives_what_is_made_of_the_response(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        let length = later.map(|response| Ok(response.get()?.get_text()?.len()));
        answer(deferred(&told), "four");
        assert_eq!(length.soon().unwrap(), 4);
        let refused =
            worker.add(|_| ()).map(|_| -> Result<()> { Err(capnp_threads::Error::failed("refused")) });
        assert!(why(refused.soon()).contains("refused"));
    });
}

/// Says that it was woken.
struct Bell(Sender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

fn bell() -> (Waker, Receiver<()>) {
    let (sender, rung) = unbounded();
    (Arc::new(Bell(sender)).into(), rung)
}

/// An executor of one future.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (waker, rung) = bell();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => (&rung).soon(),
        }
    }
}

fn a_promise_is_a_future(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let answering = std::thread::spawn(move || answer(deferred(&told), "awaited"));
        let said_twice = block_on(async {
            let response = worker.later(|_| ()).await?;
            let sum = worker.add(|mut params| params.set_b(2)).await?;
            Ok::<_, capnp_threads::Error>(format!("{} {}", said(&response), sum_in(sum)))
        });
        assert_eq!(said_twice.unwrap(), "awaited 2");
        answering.join().unwrap();
        let failed = block_on(async { worker.unwritten(|_| ()).await });
        assert_eq!(failed.unwrap_err().kind(), ExceptionKind::Unimplemented);
    });
}

fn many_futures_on_one_executor(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let mut futures: Vec<_> = (0..5).map(|_| Box::pin(worker.later(|_| ()))).collect();
        let (waker, rung) = bell();
        let mut context = Context::from_waker(&waker);
        assert!(futures.iter_mut().all(|future| future.as_mut().poll(&mut context).is_pending()));
        (0..5).for_each(|i| answer(deferred(&told), &i.to_string()));
        for (i, mut future) in futures.into_iter().enumerate() {
            let response = loop {
                match future.as_mut().poll(&mut context) {
                    Poll::Ready(response) => break response.unwrap(),
                    Poll::Pending => (&rung).soon(),
                }
            };
            assert_eq!(said(&response), i.to_string());
        }
    });
}

/// Waits until a call of `linger` has begun.
#[track_caller]
fn lingering(told: &Receiver<Event>) -> (String, Cancel) {
    match told.soon() {
        Event::Lingering(note, cancel) => (note, cancel),
        _ => panic!("another event"),
    }
}

/// Waits until a call of `linger` has been canceled.
#[track_caller]
fn canceled(told: &Receiver<Event>) -> String {
    match told.soon() {
        Event::Canceled(note) => note,
        _ => panic!("another event"),
    }
}

fn a_timeout_cancels_the_call(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let mut request = worker.linger_request().timeout(Duration::from_millis(1));
        request.get().set_note("in vain");
        let error = request.send().soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Overloaded);
        assert!(error.to_string().contains("deadline"), "{error}");
        // If it got as far as its method, that hears of it. (It may have been too late before.)
        add(&worker, 0, 0).unwrap();
        if !told.is_empty() {
            assert_eq!(lingering(&told).0, "in vain");
            assert_eq!(canceled(&told), "in vain");
        }
    });
}

fn an_answer_in_time_is_no_timeout(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later_request().timeout(DEADLINE).send();
        answer(deferred(&told), "soon");
        assert_eq!(said(&later.soon().unwrap()), "soon");
        let sum = worker.add_request().timeout(DEADLINE).no_pipelining().send().soon().unwrap();
        assert_eq!(sum_in(sum), 0);
    });
}

fn dropping_a_promise_cancels_the_call(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let linger = worker.linger(|mut params| params.set_note("dropped"));
        let (note, cancel) = lingering(&told);
        assert_eq!(note, "dropped");
        assert!(!cancel.is_canceled());
        let (sender, heard) = unbounded();
        cancel.on_cancel(move || sender.send(()).unwrap());
        drop(linger);
        (&heard).soon();
        assert_eq!(canceled(&told), "dropped");
        assert!(cancel.is_canceled());
        assert_eq!(add(&worker, 3, 3).unwrap(), 6);
    });
}

fn dropping_a_client_cancels_nothing(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        drop(worker);
        let duty = deferred(&told);
        assert!(!duty.cancellation().is_canceled());
        answer(duty, "all the same");
        assert_eq!(said(&later.soon().unwrap()), "all the same");
    });
}

fn what_a_promise_became_cancels_the_call(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let mapped = worker.linger(|mut params| params.set_note("mapped")).map(|_| Ok(()));
        lingering(&told);
        drop(mapped);
        assert_eq!(canceled(&told), "mapped");
        // Whoever holds a part of it keeps it going.
        let linger = worker.linger(|mut params| params.set_note("in parts"));
        let (_, cancel) = lingering(&told);
        let capnp_threads::RemotePromise { promise, pipeline } = linger;
        drop(promise);
        assert!(!cancel.is_canceled());
        drop(pipeline);
        assert_eq!(canceled(&told), "in parts");
    });
}

fn a_canceled_method_stops_waiting(setting: Setting) {
    struct Waiting(worker::Client, Sender<String>);
    impl worker::Server for Waiting {
        fn add(&self, _: worker::AddParams, results: worker::AddResults<'_>) -> Result<()> {
            let waited = self.0.linger(|mut params| params.set_note("within")).wait();
            assert!(results.is_canceled());
            self.1.send(why(waited)).unwrap();
            Ok(())
        }
    }
    let ((inner, told), (sender, heard)) = (worker(), unbounded());
    let object = capnp_threads::Capability::new(Waiting(inner, sender));
    offered(setting, object, |outer: worker::Client| {
        let sum = outer.add(|_| ());
        lingering(&told);
        drop(sum);
        // The method's own wait ends, and with it the call that it waited for.
        assert!((&heard).soon().contains("canceled"));
        assert_eq!(canceled(&told), "within");
    });
}

fn an_answered_call_is_not_canceled(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        let duty = deferred(&told);
        let cancel = duty.cancellation().clone();
        answer(duty, "done");
        drop(later.soon().unwrap());
        add(&worker, 0, 0).unwrap();
        assert!(!cancel.is_canceled());
        assert!(cancel.wait().is_err());
    });
}
