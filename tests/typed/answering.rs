//! What a method may do with its call besides filling in the results.

use std::sync::Mutex;

use capnp::any_pointer;
use capnp_threads::{Capability, Deferred, Error, Exception, ExceptionKind, Result, WeakClient};
use crossbeam_channel::{unbounded, Sender};

use crate::support::{offered, text, why, Setting, Soon};
use crate::work::{add, answer, deferred, said, silent, sum, sum_in, worker, Event};

in_each_setting!(
    a_call_is_answered_from_another_thread,
    calls_are_answered_in_any_order,
    a_deferred_call_fails,
    a_deferred_call_fails_in_filling_its_results,
    a_deferred_call_is_dropped,
    a_deferred_call_is_handed_on,
    a_deferred_call_has_its_params,
    the_next_call_starts_beside_this_one,
    one_call_at_a_time_without_that,
    a_call_is_handed_on,
    a_call_is_handed_on_to_whoever_made_it,
    what_is_done_twice_is_an_error,
    a_method_knows_where_its_call_came_from,
    a_method_calls_its_caller,
    an_error_takes_the_place_of_results,
    results_are_set_as_a_whole,
    a_pipeline_leads_to_that_of_another_call,
    a_method_without_results_is_answered_later,
    an_object_hands_itself_out,
);

fn a_call_is_answered_from_another_thread(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        let duty = deferred(&told);
        let answering = std::thread::spawn(move || answer(duty, "from afar"));
        assert_eq!(said(&later.soon().unwrap()), "from afar");
        answering.join().unwrap();
    });
}

fn calls_are_answered_in_any_order(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let calls: Vec<_> = (0..4).map(|_| worker.later(|_| ())).collect();
        let duties: Vec<_> = (0..4).map(|_| deferred(&told)).collect();
        for (i, duty) in duties.into_iter().enumerate().rev() {
            answer(duty, &i.to_string());
        }
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(said(&call.soon().unwrap()), i.to_string());
        }
    });
}

fn a_deferred_call_fails(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        deferred(&told).fail(Exception::overloaded("too much"));
        let error = later.soon().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Overloaded);
        assert!(error.to_string().contains("too much"), "{error}");
    });
}

fn a_deferred_call_fails_in_filling_its_results(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        deferred(&told).answer(|mut results| {
            results.set_text("half");
            Err(Error::unimplemented("the other half"))
        });
        assert_eq!(later.soon().unwrap_err().kind(), ExceptionKind::Unimplemented);
    });
}

fn a_deferred_call_is_dropped(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        drop(deferred(&told));
        assert_eq!(later.soon().unwrap_err().kind(), ExceptionKind::Failed);
        assert_eq!(add(&worker, 1, 0).unwrap(), 1);
    });
}

fn a_deferred_call_is_handed_on(setting: Setting) {
    let ((object, told), (other, other_told)) = (worker(), worker());
    offered(setting, object, |worker| {
        let later = worker.later(|_| ());
        let duty = deferred(&told);
        let mut request = other.later_request();
        request.get().set_text("handed on");
        duty.tail_call(request);
        let duty = deferred(&other_told);
        let params: worker::LaterParams = duty.params().clone().cast();
        assert_eq!(text(params.get().unwrap().get_text()), "handed on");
        answer(duty, "by another");
        assert_eq!(said(&later.soon().unwrap()), "by another");
    });
}

fn a_deferred_call_has_its_params(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let later = worker.later(|mut params| params.set_text("kept"));
        let duty = deferred(&told);
        let reader: Result<worker::later_params::Reader<'_>> = duty.params().get_as();
        assert_eq!(text(reader.unwrap().get_text()), "kept");
        answer(duty, "");
        later.soon().unwrap();
    });
}

fn the_next_call_starts_beside_this_one(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let calls = ["a", "b"].map(|text| worker.beside(|mut params| params.set_text(text)));
        let begun = [(&told).soon(), (&told).soon()].map(|event| match event {
            Event::Beside(text, go) => (text, go),
            _ => panic!("another event"),
        });
        // Both run. Which was first to say so is not known.
        let mut texts = begun.each_ref().map(|(text, _)| text.as_str());
        texts.sort_unstable();
        assert_eq!(texts, ["a", "b"]);
        begun.iter().for_each(|(_, go)| go.send(()).unwrap());
        for (call, wanted) in calls.into_iter().zip(["a", "b"]) {
            assert_eq!(text(call.soon().unwrap().get().unwrap().get_text()), wanted);
        }
    });
}

fn one_call_at_a_time_without_that(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let ahead = worker.ahead();
        let Event::Ahead(go) = (&told).soon() else { panic!("another event") };
        let sum = worker.add(|mut params| params.set_a(1));
        let sum = sum.try_take().unwrap_err().into_pending().unwrap();
        go.send(()).unwrap();
        ahead.soon().unwrap();
        assert_eq!(sum_in(sum.soon().unwrap()), 1);
    });
}

fn forward(worker: &worker::Client, to: &worker::Client, a: i64, b: i64) -> Result<i64> {
    let sum = worker.forward(|mut params| {
        params.set_to(to.clone());
        params.set_a(a);
        params.set_b(b);
    });
    sum.soon().map(sum_in)
}

fn a_call_is_handed_on(setting: Setting) {
    offered(setting, silent(), |worker| {
        let other = worker.next().soon().unwrap().get().unwrap().get_worker().unwrap();
        assert_eq!(forward(&worker, &other, 10, 20).unwrap(), 30);
        // To one that is only promised yet.
        assert_eq!(forward(&worker, &other.next().pipeline.get().get_worker(), 1, 2).unwrap(), 3);
        let error = forward(&worker, &Capability::broken(Exception::overloaded("full")), 0, 0).unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Overloaded);
    });
}

fn a_call_is_handed_on_to_whoever_made_it(setting: Setting) {
    offered(setting, silent(), |worker| {
        assert_eq!(forward(&worker, &silent(), 4, 4).unwrap(), 8);
        let (mine, told) = crate::work::worker();
        let (client, fulfiller) = worker::Client::promise();
        let sum = worker.forward(|mut params| {
            params.set_to(client);
            params.set_b(6);
        });
        fulfiller.fulfill(mine);
        assert_eq!(sum_in(sum.soon().unwrap()), 6);
        drop(told);
    });
}

/// Does with its calls what can be done once, twice.
struct Twice(Sender<String>);

impl worker::Server for Twice {
    fn add(&self, _: worker::AddParams, mut results: worker::AddResults<'_>) -> Result<()> {
        results.allow_next();
        results.allow_next();
        results.get().set_sum(1);
        // What was begun goes on.
        let so_far = results.get().get_sum();
        results.get().set_sum(so_far + 1);
        Ok(())
    }

    fn later(&self, _: worker::LaterParams, results: worker::LaterResults<'_>) -> Result<()> {
        let duty = results.defer()?;
        answer(duty, "first");
        // An error behind an answer comes too late.
        self.0.send("later".to_owned()).unwrap();
        Err(Error::failed("too late"))
    }
}

fn what_is_done_twice_is_an_error(setting: Setting) {
    let (sender, heard) = unbounded();
    offered(setting, worker::Client::new(Twice(sender)), |twice| {
        assert_eq!(add(&twice, 0, 0).unwrap(), 2);
        assert_eq!(said(&twice.later(|_| ()).soon().unwrap()), "first");
        assert_eq!((&heard).soon(), "later");
        assert_eq!(add(&twice, 0, 0).unwrap(), 2);
    });
}

fn a_method_knows_where_its_call_came_from(setting: Setting) {
    offered(setting, silent(), |worker| {
        let who = worker.who().soon().unwrap();
        let who = who.get().unwrap();
        assert_eq!(who.get_connected(), setting.is_remote());
        let peer = text(who.get_peer());
        match setting {
            Setting::Tcp => assert!(peer.starts_with("tcp 127.0.0.1:"), "{peer}"),
            Setting::Memory => assert_eq!(peer, "in memory"),
            Setting::Local => assert_eq!(peer, ""),
        }
        assert_eq!(who.has_peer(), setting.is_remote());
    });
}

fn a_method_calls_its_caller(setting: Setting) {
    offered(setting, silent(), |worker| {
        let called = worker.call(|mut params| {
            params.set_callback(silent());
            params.set_a(40);
            params.set_b(2);
        });
        assert_eq!(sum_in(called.soon().unwrap()), 42);
        // There and back, and there and back again.
        struct Back(Mutex<worker::Client>);
        impl worker::Server for Back {
            fn add(&self, params: worker::AddParams, mut results: worker::AddResults<'_>) -> Result<()> {
                let params = params.get()?;
                let other = self.0.lock().unwrap().clone();
                let sum = add(&other, params.get_a(), params.get_b())?;
                results.get().set_sum(sum * 2);
                Ok(())
            }
        }
        let other = worker.next().soon().unwrap().get().unwrap().get_worker().unwrap();
        let back = worker::Client::new(Back(other.into()));
        let called = worker.call(|mut params| {
            params.set_callback(back);
            params.set_a(3);
            params.set_b(4);
        });
        assert_eq!(sum_in(called.soon().unwrap()), 14);
    });
}

fn an_error_takes_the_place_of_results(setting: Setting) {
    struct Half;
    impl worker::Server for Half {
        fn add(&self, params: worker::AddParams, mut results: worker::AddResults<'_>) -> Result<()> {
            results.get().set_sum(1);
            if params.get()?.get_a() == 0 {
                return Err(Error::failed("after all, no"));
            }
            Ok(())
        }
    }
    offered(setting, worker::Client::new(Half), |half| {
        assert!(why(add(&half, 0, 0)).contains("after all, no"));
        assert_eq!(add(&half, 1, 0).unwrap(), 1);
    });
}

fn results_are_set_as_a_whole(setting: Setting) {
    struct Whole;
    impl worker::Server for Whole {
        fn add(&self, _: worker::AddParams, mut results: worker::AddResults<'_>) -> Result<()> {
            let mut message = capnp::message::Builder::new_default();
            let mut made = message.init_root::<sum::Builder<'_>>();
            made.set_sum(77);
            results.set(made.into_reader())
        }
    }
    offered(setting, worker::Client::new(Whole), |whole| assert_eq!(add(&whole, 0, 0).unwrap(), 77));
}

/// Answers `next` later, with what another worker's `next` gives.
struct Front(
    worker::Client,
    Sender<Deferred<worker::next_results::Owned>>,
    Sender<Deferred<worker::panic_results::Owned>>,
);

impl worker::Server for Front {
    fn next(&self, _: worker::NextParams, mut results: worker::NextResults<'_>) -> Result<()> {
        let inner = self.0.open(|_| ());
        results.set_pipeline_to(inner.pipeline.clone().cast::<any_pointer::Owned>().field(1).cast())?;
        // The first one counts.
        results.set_pipeline()?;
        self.1.send(results.defer()?).unwrap();
        Ok(())
    }

    fn panic(&self, _: worker::PanicParams, results: worker::PanicResults<'_>) -> Result<()> {
        self.2.send(results.defer()?).unwrap();
        Ok(())
    }
}

fn a_pipeline_leads_to_that_of_another_call(setting: Setting) {
    let (tell, told) = unbounded();
    offered(setting, worker::Client::new(Front(silent(), tell, unbounded().0)), |front| {
        let next = front.next();
        let ahead = next.pipeline.get().get_worker();
        assert_eq!(add(&ahead, 1, 2).unwrap(), 3);
        let duty = (&told).soon();
        assert!(!next.is_ready());
        duty.answer(|mut results| {
            results.set_worker(silent());
            Ok(())
        });
        let next = next.soon().unwrap();
        assert_eq!(add(&next.get().unwrap().get_worker().unwrap(), 3, 4).unwrap(), 7);
    });
}

fn a_method_without_results_is_answered_later(setting: Setting) {
    let (tell, told) = unbounded();
    offered(setting, worker::Client::new(Front(silent(), unbounded().0, tell)), |front| {
        let call = front.panic(|_| ());
        (&told).soon().done();
        assert!(call.soon().unwrap().get().is_ok());
    });
}

fn an_object_hands_itself_out(setting: Setting) {
    struct Itself(WeakClient<worker::Client>);
    impl worker::Server for Itself {
        fn add(&self, _: worker::AddParams, mut results: worker::AddResults<'_>) -> Result<()> {
            results.get().set_sum(12);
            Ok(())
        }
        fn next(&self, _: worker::NextParams, mut results: worker::NextResults<'_>) -> Result<()> {
            let this: worker::Client = results.this_client();
            assert_eq!(self.0.upgrade().expect("it is being called"), this);
            results.get().set_worker(this);
            Ok(())
        }
    }
    let object = worker::Client::new_cyclic(|this| Itself(this.clone()));
    offered(setting, object, |object| {
        let next = object.next().pipeline.get().get_worker();
        assert_eq!(add(&next, 0, 0).unwrap(), 12);
        assert_eq!(next.resolve().unwrap(), object.resolve().unwrap());
    });
}
