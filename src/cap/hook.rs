//! The bridge to the `capnp` crate's capability types.
//!
//! Generated structs read and set capability fields as `Box<dyn ClientHook>`, which is neither `Send` nor
//! `Sync`. Our truth is a `Vec<Client>`, which is both; what the `capnp` crate wants is made from it for the
//! reading ([`ReadTable`]), and turned back into it after the building ([`take_clients`]).
//!
//! This and `memory::trim` are the modules that may use `unsafe`.
#![allow(unsafe_code)]

use std::cell::RefCell;

use capnp::any_pointer;
use capnp::capability::{self, FromClientHook, RemotePromise};
use capnp::private::capability::{
    ClientHook, ParamsHook, PipelineHook, PipelineOp, RequestHook, ResponseHook, ResultsHook,
};
use capnp::MessageSize;

use super::answer::Pipeline;
use super::capability::Capability;
use super::client::Client;
use super::contents::Response;
use super::request::Request;
use crate::error::{Error, Exception, Result};
use crate::short::Short;
use crate::sync::{foreign_outcome, per_thread};

/// The table that a reader finds clients in.
pub(crate) struct ReadTable(Vec<Option<Box<dyn ClientHook>>>);

// SAFETY: every box in the table holds a `Client`, which is `Send` and `Sync` (asserted below): `new` is the
// only place that fills a table, and nothing changes one afterwards, since it is only ever lent out by shared
// reference. What a reader gets are clones that `Client`'s own `add_ref` made; those are `!Send` boxes of
// their own on the thread that asked.
unsafe impl Send for ReadTable {}
// SAFETY: as above: through `&ReadTable` only `&Client` can be reached, and `Client` is `Sync`.
unsafe impl Sync for ReadTable {}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Client>();
};

impl ReadTable {
    pub(crate) fn new(clients: &[Client]) -> Self {
        ReadTable(clients.iter().map(|c| Some(Box::new(c.clone()) as Box<dyn ClientHook>)).collect())
    }

    /// The table of a content without capabilities.
    pub(crate) fn empty() -> &'static Self {
        static EMPTY: ReadTable = ReadTable(Vec::new());
        &EMPTY
    }

    pub(crate) fn get(&self) -> &Vec<Option<Box<dyn ClientHook>>> {
        &self.0
    }
}

/// The table that a builder puts clients into. It may hold foreign hooks until [`take_clients`] has looked,
/// which is why whatever owns one stays on its thread.
pub(crate) type BuildTable = Vec<Option<Box<dyn ClientHook>>>;

/// The clients in a table that was built.
///
/// # Errors
/// If one of them is not a client of this crate.
pub(crate) fn take_clients(table: BuildTable) -> Result<Short<Client>, Exception> {
    if table.is_empty() {
        return Ok(Short::new());
    }
    let refused = "a capability of another Cap'n Proto implementation cannot be sent here";
    let client = |hook: Option<Box<dyn ClientHook>>| match hook {
        None => Ok(Client::null()),
        Some(hook) => from_hook(&*hook).ok_or_else(|| Exception::failed(refused)),
    };
    let clients = || table.into_iter().map(client).collect();
    foreign_outcome("a capability of another Cap'n Proto implementation", clients)
        .unwrap_or_else(|said| Err(Exception::failed(said)))
}

enum Question {
    None,
    Asked,
    /// The client, and where its copy lies that was the answer.
    Answered(Client, usize),
}

per_thread! {
    /// Where a hook of ours, asked for a copy of itself, leaves its client. Only `Client::add_ref` answers, so a
    /// foreign hook can't be taken for ours, whatever numbers it returns; and it says where the copy lies, so that a
    /// foreign hook that wraps one of ours, and whose copies wrap copies of that, can't either. (Where the hook
    /// itself lies says nothing: the first field of a wrapper lies there too.)
    static QUESTION: RefCell<Question> = RefCell::new(Question::None);
}

/// The client behind a hook, if it is ours.
pub(crate) fn from_hook(hook: &dyn ClientHook) -> Option<Client> {
    QUESTION.with(|q| q.replace(Question::Asked));
    let copy = hook.add_ref();
    match QUESTION.with(|q| q.replace(Question::None)) {
        Question::Answered(client, at) if at == address_of(&*copy) => Some(client),
        _ => None,
    }
}

fn address_of(hook: &dyn ClientHook) -> usize {
    std::ptr::from_ref(hook).cast::<()>().addr()
}

impl Client {
    /// The client in a capability field of a generated struct.
    ///
    /// # Errors
    /// If it belongs to another implementation of Cap'n Proto RPC.
    pub fn from_typed(typed: impl FromClientHook) -> Result<Client> {
        from_hook(typed.as_client_hook())
            .ok_or_else(|| Error::failed("a capability of another Cap'n Proto implementation"))
    }

    /// This client as the type that `capnpc` generated for an interface, to be put into a capability field.
    pub fn into_typed<C: FromClientHook>(self) -> C {
        C::new(Box::new(self))
    }
}

impl FromClientHook for Client {
    /// A hook of another implementation becomes a broken client.
    fn new(hook: Box<dyn ClientHook>) -> Self {
        from_hook(&*hook).unwrap_or_else(|| {
            Client::broken(Exception::failed("a capability of another Cap'n Proto implementation"))
        })
    }

    fn into_client_hook(self) -> Box<dyn ClientHook> {
        Box::new(self)
    }

    fn as_client_hook(&self) -> &dyn ClientHook {
        self
    }
}

#[doc(hidden)]
impl ClientHook for Client {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        let copy = Box::new(self.clone());
        QUESTION.with(|q| {
            if let question @ Question::Asked = &mut *q.borrow_mut() {
                *question = Question::Answered(self.clone(), address_of(&*copy));
            }
        });
        copy
    }

    fn new_call(
        &self,
        interface_id: u64,
        method_id: u16,
        size_hint: Option<MessageSize>,
    ) -> capability::Request<any_pointer::Owned, any_pointer::Owned> {
        capability::Request::new(Box::new(Hook(self.request_sized(interface_id, method_id, size_hint))))
    }

    fn call(
        &self,
        _interface_id: u64,
        _method_id: u16,
        _params: Box<dyn ParamsHook>,
        _results: Box<dyn ResultsHook>,
    ) -> capability::Promise<(), capnp::Error> {
        capability::Promise::err(capnp::Error::unimplemented(
            "a call of another Cap'n Proto implementation cannot be forwarded to capnp-threads".into(),
        ))
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn get_ptr(&self) -> usize {
        self.address()
    }

    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        let resolved = self.resolved();
        (resolved.address() != self.address()).then(|| Box::new(resolved) as Box<dyn ClientHook>)
    }

    fn when_more_resolved(&self) -> Option<capability::Promise<Box<dyn ClientHook>, capnp::Error>> {
        let promise = self.next_resolution()?;
        Some(capability::Promise::from_future(
            async move { Ok(Box::new(promise.await?) as Box<dyn ClientHook>) },
        ))
    }

    fn when_resolved(&self) -> capability::Promise<(), capnp::Error> {
        let mut client = self.clone();
        capability::Promise::from_future(async move {
            while let Some(next) = client.next_resolution() {
                client = next.await?;
            }
            client.broken_reason().map_or(Ok(()), |why| Err(crate::error::Error::from(why).into()))
        })
    }
}

/// A request, response or pipeline as the `capnp` crate holds it.
pub(super) struct Hook<T>(pub(super) T);

impl RequestHook for Hook<Request> {
    fn get(&mut self) -> any_pointer::Builder<'_> {
        self.0.get()
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn send(self: Box<Self>) -> RemotePromise<any_pointer::Owned> {
        let sent = self.0.send();
        let promise = sent.promise;
        RemotePromise {
            promise: capability::Promise::from_future(async move {
                let response = promise.await?;
                Ok(capability::Response::new(Box::new(Hook(response))))
            }),
            pipeline: any_pointer::Pipeline::new(Box::new(Hook(sent.pipeline))),
        }
    }

    fn send_streaming(self: Box<Self>) -> capability::Promise<(), capnp::Error> {
        let promise = self.0.send().promise;
        capability::Promise::from_future(async move { Ok(promise.await.map(drop)?) })
    }

    fn tail_send(
        self: Box<Self>,
    ) -> Option<(u32, capability::Promise<(), capnp::Error>, Box<dyn PipelineHook>)> {
        None
    }
}

impl ResponseHook for Hook<Response> {
    fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        Ok(self.0.get()?)
    }
}

impl PipelineHook for Hook<Pipeline> {
    fn add_ref(&self) -> Box<dyn PipelineHook> {
        Box::new(Hook(self.0.clone()))
    }

    fn get_pipelined_cap(&self, ops: &[PipelineOp]) -> Box<dyn ClientHook> {
        let field = |op: &PipelineOp| match op {
            PipelineOp::Noop => None,
            PipelineOp::GetPointerField(index) => Some(*index),
        };
        match ops {
            [PipelineOp::GetPointerField(index)] => Box::new(self.0.client_at(&[*index])),
            _ => Box::new(self.0.client_at(&ops.iter().filter_map(field).collect::<Vec<_>>())),
        }
    }
}
