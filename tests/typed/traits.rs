//! What may cross threads, and what any client is: facts that the compiler checks.

use std::fmt::Debug;

use capnp::text::Owned as Text;
use capnp::traits::Owned;
use capnp_threads::{
    Capability, ClientFulfiller, Deferred, FromServer, Params, Pipeline, Promise, RemotePromise, Response,
    Stream,
};

use crate::generated::generics_capnp::{cell, named_cell, pair, text_cell, turned};
use crate::generated::inherit_capnp::{duck, mallard, quiet};
use crate::generated::methods_capnp::{collisions, sink};
use crate::work::{opened, sum, worker, Worker};

fn client<C: Capability + Clone + Send + Sync + Debug + Eq + 'static>() {}
fn sends<T: Send>() {}
fn shared<T: Send + Sync>() {}
fn upcast<From: Capability, To: Capability + std::convert::From<From>>() {}
fn serves<C: FromServer<S>, S: std::any::Any + Send + Sync>() {}
fn send_sync<T: Send + Sync + ?Sized>(_: &T) {}

/// The same for all arguments, whatever they are: nothing here may ask more of `T` than that.
fn generic<T: Owned + 'static, U: Owned + 'static>() {
    client::<cell::Client<T>>();
    client::<cell::watcher::Client<T>>();
    client::<cell::reading::Client<T, U>>();
    client::<turned::Client<T, U>>();
    upcast::<named_cell::Client<T>, cell::Client<T>>();
    serves::<cell::Client<T>, crate::generics::Kept<T>>();
    sends::<RemotePromise<pair::Owned<T, U>>>();
    sends::<Promise<Response<T>>>();
    shared::<Response<T>>();
    shared::<Params<U>>();
    shared::<Pipeline<T>>();
    shared::<cell::SetParams<T>>();
    sends::<Deferred<T>>();
    sends::<ClientFulfiller<cell::Client<T>>>();
}

#[test]
fn typed_clients_are_what_clients_are() {
    client::<capnp_threads::Client>();
    client::<worker::Client>();
    client::<mallard::Client>();
    client::<collisions::Client>();
    client::<quiet::Client>();
    client::<text_cell::Client>();
    // A type that is no data at all, and one that is not `Send`.
    generic::<capnp::any_pointer::Owned, worker::Owned>();
    generic::<Text, cell::Owned<cell::Owned<Text>>>();
    assert!(worker::Client::null().is_null());
}

#[test]
fn what_crosses_threads_does() {
    sends::<RemotePromise<sum::Owned>>();
    sends::<Promise<Response<sum::Owned>>>();
    shared::<Response<opened::Owned>>();
    shared::<Params<opened::Owned>>();
    shared::<worker::AddParams>();
    shared::<Pipeline<opened::Owned>>();
    sends::<Deferred<sum::Owned>>();
    sends::<ClientFulfiller<worker::Client>>();
    shared::<Stream>();
    serves::<worker::Client, Worker>();
    upcast::<mallard::Client, duck::Client>();
    upcast::<mallard::Client, capnp_threads::Client>();
    upcast::<text_cell::Client, cell::Client<Text>>();
    let worker = crate::work::silent();
    // Whatever crosses, works there.
    let call = worker.add(|mut params| params.set_a(2));
    let response = worker.open(|mut params| params.set_name("shared")).wait().unwrap();
    let (sum, name) = std::thread::scope(|scope| {
        let sum = scope.spawn(move || crate::work::sum_in(call.wait().unwrap()));
        let name = scope.spawn(|| response.get().unwrap().get_name().unwrap().to_string().unwrap());
        (sum.join().unwrap(), name.join().unwrap())
    });
    assert_eq!((sum, &*name), (2, "shared"));
}

#[test]
fn references_cross_threads_too() {
    let (worker, sink) = (crate::work::silent(), sink::Client::null());
    let stream = Stream::new();
    send_sync(&(&worker, &sink, &stream));
    let sums: Vec<i64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|i| {
                scope.spawn({
                    let worker = &worker;
                    move || crate::work::add(worker, i, i)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    assert_eq!(sums, [0, 2, 4, 6, 8, 10, 12, 14]);
}
