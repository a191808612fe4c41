//! Calls made ahead, on capabilities in results that have yet to come.

use capnp_threads::{Capability, Client, Exception, ExceptionKind, Pipeline};

use crate::support::{hooked, offered, text, Setting, Soon, DEADLINE};
use crate::work::{add, deferred, opened, silent, worker, Event, Worker};

in_each_setting!(
    through_nested_structs,
    through_groups,
    a_chain_of_calls_is_made_at_once,
    a_pipeline_keeps_the_call,
    a_client_of_a_pipeline_keeps_the_call,
    a_call_for_its_pipeline_alone,
    the_pipeline_is_known_before_the_results,
    the_same_place_is_the_same_client,
    typed_and_untyped_lead_to_the_same,
    a_broken_pipeline_breaks_its_clients,
    calls_ahead_are_in_order_with_calls_behind,
);

fn through_nested_structs(setting: Setting) {
    offered(setting, silent(), |worker| {
        let opened = worker.open(|mut params| params.set_name("house"));
        let room = opened.pipeline.get().get_room();
        assert_eq!(add(&room.get_door(), 1, 2).unwrap(), 3);
        assert_eq!(add(&room.get_next().get_door(), 3, 4).unwrap(), 7);
        // There is no such room, and so no such door.
        let none = room.get_next().get_next().get_door();
        assert_eq!(add(&none, 0, 0).unwrap_err().kind(), ExceptionKind::Failed);
        let opened = opened.soon().unwrap();
        assert_eq!(text(opened.get().unwrap().get_name()), "house");
    });
}

fn through_groups(setting: Setting) {
    offered(setting, silent(), |worker| {
        let opened = worker.open(|_| ()).pipeline.get();
        let group = opened.get_group();
        assert_eq!(add(&group.get_worker(), 1, 1).unwrap(), 2);
        assert_eq!(add(&group.get_deeper().get_room().get_door(), 2, 2).unwrap(), 4);
    });
}

fn a_chain_of_calls_is_made_at_once(setting: Setting) {
    offered(setting, silent(), |worker| {
        let mut last = worker;
        for _ in 0..20 {
            last = last.next().pipeline.get().get_worker();
        }
        let sum = last.add(|mut params| params.set_a(20)).soon().unwrap();
        assert_eq!(sum.get().unwrap().get_sum(), 20);
        assert!(!last.resolve().unwrap().is_promise());
    });
}

fn a_pipeline_keeps_the_call(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let pipeline: Pipeline<_> = worker.later(|_| ()).pipeline;
        let duty = deferred(&told);
        let another = pipeline.clone();
        drop(pipeline);
        assert!(!duty.cancellation().is_canceled());
        let cancel = duty.cancellation().clone();
        drop(another);
        // Nobody wants it any more.
        cancel.wait().unwrap();
        drop(duty);
    });
}

fn a_client_of_a_pipeline_keeps_the_call(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let door = worker.ahead().pipeline.get().get_room().get_next().get_door();
        let Event::Ahead(go) = (&told).soon() else { panic!("another event") };
        go.send(()).unwrap();
        // In what was made known there is no such door: that it is null is known.
        assert!(add(&door, 0, 0).is_err());
        let door = worker.open(|_| ()).pipeline.get().get_room().get_door();
        assert_eq!(add(&door, 6, 7).unwrap(), 13);
        assert!(door.resolve().is_ok());
    });
}

fn a_call_for_its_pipeline_alone(setting: Setting) {
    offered(setting, silent(), |worker| {
        let pipeline: Pipeline<opened::Owned> = worker.open_request().send_for_pipeline();
        let doors = [pipeline.get().get_room().get_door(), pipeline.get().get_group().get_worker()];
        drop(pipeline);
        for door in doors {
            assert_eq!(add(&door, 8, 1).unwrap(), 9);
        }
    });
}

fn the_pipeline_is_known_before_the_results(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let ahead = worker.ahead();
        let Event::Ahead(go) = (&told).soon() else { panic!("another event") };
        let door = ahead.pipeline.get().get_room().get_door();
        // The method has not returned.
        assert_eq!(add(&door, 2, 3).unwrap(), 5);
        assert!(!ahead.is_ready());
        go.send(()).unwrap();
        let ahead = ahead.soon().unwrap();
        let results = ahead.get().unwrap();
        assert_eq!(text(results.get_name()), "after all");
        let after = results.get_room().unwrap().get_door().unwrap();
        assert_eq!(after.resolve().unwrap(), door.resolve().unwrap());
    });
}

fn the_same_place_is_the_same_client(setting: Setting) {
    offered(setting, silent(), |worker| {
        let opened = worker.open(|_| ());
        let (one, two) = (opened.pipeline.get(), opened.pipeline.get());
        assert_eq!(one.get_room().get_door(), two.get_room().get_door());
        assert_ne!(one.get_room().get_door(), one.get_group().get_worker());
        let door = one.get_room().get_door();
        let response = opened.soon().unwrap();
        let same = response.get().unwrap().get_room().unwrap().get_door().unwrap();
        assert_eq!(same, door);
        assert_eq!(same.resolve().unwrap(), door.resolve().unwrap());
    });
}

fn typed_and_untyped_lead_to_the_same(setting: Setting) {
    offered(setting, silent(), |worker| {
        let opened = worker.open(|_| ());
        // `room` is the second pointer of the results, and `door` the first of the room.
        let untyped = Pipeline::<opened::Owned>::get(&opened.pipeline);
        let typed = untyped.get_room().get_door();
        let request = worker.as_ref().request(id::<crate::work::worker::Client>(), 5);
        let sent = request.send();
        let door: crate::work::worker::Client = sent.pipeline.field(1).field(0).client().into();
        assert_eq!(add(&door, 1, 0).unwrap(), add(&typed, 0, 1).unwrap());
        let cast: Pipeline<opened::Owned> = sent.pipeline.clone().cast();
        assert_eq!(cast.get().get_room().get_door(), door);
        let back: Pipeline = opened.pipeline.clone().cast();
        assert_eq!(back.field(1).field(0).client(), typed.clone().into());
        assert!(sent.promise.wait_timeout(DEADLINE).is_ok());
    });
}

fn id<C: capnp::traits::HasTypeId>() -> u64 {
    C::TYPE_ID
}

fn a_broken_pipeline_breaks_its_clients(setting: Setting) {
    let broken: Pipeline<opened::Owned> = Pipeline::broken(Exception::disconnected("never was")).cast();
    let door = broken.get().get_room().get_next().get_door();
    let group = broken.get().get_group().get_worker();
    assert_eq!(door.broken_reason().unwrap().kind(), ExceptionKind::Disconnected);
    offered(setting, silent(), |worker| {
        let called = worker.call(|mut params| params.set_callback(group)).soon();
        assert_eq!(called.unwrap_err().kind(), ExceptionKind::Disconnected);
    });
}

fn calls_ahead_are_in_order_with_calls_behind(setting: Setting) {
    let (object, told) = worker();
    offered(setting, object, |worker| {
        let (events, inner_told) = crossbeam_channel::unbounded();
        let inner = crate::work::worker::Client::new(Worker::new(&events));
        worker.keep(|mut params| params.set_worker(inner.clone())).soon().unwrap();
        // Ours comes back to us; calls made ahead on it take the long way, those behind must not overtake them.
        let kept = worker.keep(|mut params| params.set_worker(Capability::null()));
        let ahead = kept.pipeline.get().get_kept();
        let calls: Vec<_> =
            (0..10).map(|i| ahead.later(|mut params| params.set_text(&*i.to_string()))).collect();
        let behind = kept.soon().unwrap().get().unwrap().get_kept().unwrap();
        let more: Vec<_> =
            (10..20).map(|i| behind.later(|mut params| params.set_text(&*i.to_string()))).collect();
        for i in 0..20 {
            let duty = deferred(&inner_told);
            let params: crate::work::worker::LaterParams = duty.params().clone().cast();
            assert_eq!(text(params.get().unwrap().get_text()), i.to_string());
            crate::work::answer(duty, "");
        }
        assert!(calls.into_iter().chain(more).all(|call| call.soon().is_ok()));
        assert_eq!(behind.resolve().unwrap(), inner);
        let hook = Box::new(Client::from(behind));
        assert_eq!(hooked::<crate::work::worker::Client>(hook).resolve().unwrap(), inner);
        assert!(told.is_empty());
    });
}
