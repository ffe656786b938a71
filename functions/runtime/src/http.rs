//! wasi:http/types, as far as a handler of incoming requests reaches it.
//!
//! It is linked by name, for the components that import it, with values that carry their types ([`Val`]). Bindings that are
//! generated would put some sixty functions and the types of forty errors into every node, most of them for requests
//! that no guest can send: whoever gets no request to send cannot call them, and they have one body, which traps. So does
//! a component that declares another type than WASI's for a name.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Func, Linker, Resource, ResourceAny, ResourceDynamic, ResourceType, Val};
use wasmtime::{AsContextMut, Engine, StoreContextMut};

use holm_core::{Event, Response};

use crate::exchange::{Exchange, Finished};
use crate::fault::Stop;
use crate::fields::{Fields, Refused};
use crate::io::{BODY, InputStream, OutputStream, Pollable, RESPONSES};
use crate::request::Request;
use crate::state::State;

/// The interface, of any patch release.
const TYPES: &str = "wasi:http/types@0.2.";

/// Its resources. A handle's kind is the place in this list.
const RESOURCES: [&str; 11] = [
    "fields",
    "incoming-request",
    "incoming-body",
    "future-trailers",
    "outgoing-response",
    "outgoing-body",
    "response-outparam",
    "outgoing-request",
    "request-options",
    "incoming-response",
    "future-incoming-response",
];
const FIELDS: u32 = 0;
const INCOMING_REQUEST: u32 = 1;
const INCOMING_BODY: u32 = 2;
const FUTURE_TRAILERS: u32 = 3;
const OUTGOING_RESPONSE: u32 = 4;
const OUTGOING_BODY: u32 = 5;
const RESPONSE_OUTPARAM: u32 = 6;

/// There is one request in an invocation.
const THE: u32 = 0;

type Answer = wasmtime::Result<Option<Val>>;
type Body = fn(&mut Call<'_>, &[Val]) -> Answer;

/// Links the interface for a component that imports it.
pub(crate) fn link(linker: &mut Linker<State>, engine: &Engine, component: &Component) -> wasmtime::Result<()> {
    for (import, external) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = &external.ty else { continue };
        if !import.starts_with(TYPES) {
            continue;
        }
        let mut linked = linker.instance(import)?;
        for (name, external) in instance.exports(engine) {
            match &external.ty {
                ComponentItem::ComponentFunc(_) => {
                    let body = body(name);
                    linked.func_new(name, move |store, _, parameters, results| {
                        let answer = body(&mut Call { store }, parameters)?;
                        match (results, answer) {
                            ([result], Some(value)) => *result = value,
                            ([], None) => {}
                            _ => return Err(other_type()),
                        }
                        Ok(())
                    })?;
                }
                ComponentItem::Resource(_) => {
                    // The others are those of wasi:io.
                    let Some(kind) = (0..).zip(RESOURCES).find_map(|(kind, one)| (one == name).then_some(kind)) else {
                        continue;
                    };
                    let ty = ResourceType::host_dynamic(kind);
                    linked.resource(name, ty, move |mut store, index| dropped(store.data_mut(), kind, index))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Calls a handler of `wasi:http/incoming-handler` with an event.
pub(crate) fn call(
    mut store: impl AsContextMut<Data = State>,
    handler: Func,
    event: &Event,
) -> wasmtime::Result<Response> {
    let mut call = Call { store: store.as_context_mut() };
    let exchange = call.exchange();
    exchange.request = Request::of(event);
    exchange.body = event.data.clone();
    let parameters = [call.give(INCOMING_REQUEST, THE)?, call.give(RESPONSE_OUTPARAM, THE)?];
    handler.call(&mut call.store, &parameters, &mut [])?;
    Ok(call.exchange().end()?)
}

/// The body of a function.
fn body(name: &str) -> Body {
    match name {
        "[constructor]fields" => fields_new,
        "[static]fields.from-list" => fields_from_list,
        "[method]fields.get" => fields_get,
        "[method]fields.has" => fields_has,
        "[method]fields.set" => fields_set,
        "[method]fields.delete" => fields_delete,
        "[method]fields.append" => fields_append,
        "[method]fields.entries" => fields_entries,
        "[method]fields.clone" => fields_clone,
        "[method]incoming-request.method" => request_method,
        "[method]incoming-request.path-with-query" => request_path_with_query,
        "[method]incoming-request.scheme" => request_scheme,
        "[method]incoming-request.authority" => request_authority,
        "[method]incoming-request.headers" => request_headers,
        "[method]incoming-request.consume" => request_consume,
        "[method]incoming-body.stream" => body_stream,
        "[static]incoming-body.finish" => body_finish,
        "[method]future-trailers.subscribe" => trailers_subscribe,
        "[method]future-trailers.get" => trailers_get,
        "[constructor]outgoing-response" => response_new,
        "[method]outgoing-response.status-code" => response_status_code,
        "[method]outgoing-response.set-status-code" => response_set_status_code,
        "[method]outgoing-response.headers" => response_headers,
        "[method]outgoing-response.body" => response_body,
        "[method]outgoing-body.write" => outgoing_write,
        "[static]outgoing-body.finish" => outgoing_finish,
        "[static]response-outparam.set" => outparam_set,
        _ => |_, _| Err(Stop::Misuse("a function sends no HTTP requests").into()),
    }
}

fn other_type() -> wasmtime::Error {
    Stop::Misuse("a function of wasi:http/types has another type than WASI's").into()
}

/// A call of the guest.
struct Call<'a> {
    store: StoreContextMut<'a, State>,
}

impl Call<'_> {
    fn exchange(&mut self) -> &mut Exchange {
        self.store.data_mut().exchange()
    }

    /// The index of a handle that is lent for the call.
    fn lent(&mut self, handle: &ResourceAny, kind: u32) -> wasmtime::Result<u32> {
        if handle.ty() != ResourceType::host_dynamic(kind) || handle.owned() {
            return Err(other_type());
        }
        Ok(handle.try_into_resource_dynamic(&mut self.store)?.rep())
    }

    /// The index of a handle that the guest gives away.
    fn taken(&mut self, handle: &ResourceAny, kind: u32) -> wasmtime::Result<u32> {
        if handle.ty() != ResourceType::host_dynamic(kind) || !handle.owned() {
            return Err(other_type());
        }
        self.store.data_mut().close_handle()?;
        Ok(handle.try_into_resource_dynamic(&mut self.store)?.rep())
    }

    /// A handle for the guest.
    fn give(&mut self, kind: u32, index: u32) -> wasmtime::Result<Val> {
        self.store.data_mut().open_handle()?;
        let handle = ResourceDynamic::new_own(index, kind).try_into_resource_any(&mut self.store)?;
        Ok(Val::Resource(handle))
    }

    /// One of wasi:io, which is counted already.
    fn give_stream<T: 'static>(&mut self, handle: Resource<T>) -> wasmtime::Result<Val> {
        Ok(Val::Resource(ResourceAny::try_from_resource(handle, &mut self.store)?))
    }

    fn give_fields(&mut self, fields: Arc<Fields>, immutable: bool) -> wasmtime::Result<Val> {
        let index = self.exchange().hold(fields, immutable)?;
        self.give(FIELDS, index)
    }
}

/// The guest has dropped a handle.
fn dropped(state: &mut State, kind: u32, index: u32) -> wasmtime::Result<()> {
    state.close_handle()?;
    let exchange = state.exchange();
    match kind {
        FIELDS => drop(exchange.release(index)?),
        OUTGOING_RESPONSE => exchange.drop_response(index)?,
        OUTGOING_BODY => exchange.drop_body(index)?,
        _ => {}
    }
    Ok(())
}

fn fields_new(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [] = parameters else { return Err(other_type()) };
    call.give_fields(Arc::default(), false).map(Some)
}

fn fields_from_list(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::List(entries)] = parameters else { return Err(other_type()) };
    let index = call.exchange().hold(Arc::default(), false)?;
    for entry in entries {
        let Val::Tuple(entry) = entry else { return Err(other_type()) };
        let [Val::String(name), value] = entry.as_slice() else { return Err(other_type()) };
        let value = bytes(value)?;
        let (fields, room) = call.exchange().fields(index)?;
        if let Err(refused) = fields.put(name, vec![value], true, room) {
            call.exchange().release(index)?;
            return refusal(&refused);
        }
    }
    let fields = call.give(FIELDS, index)?;
    ok(Some(fields))
}

fn fields_get(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this), Val::String(name)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, FIELDS)?;
    let (fields, _) = call.exchange().fields(index)?;
    Ok(Some(Val::List(fields.get(name).map(list).collect())))
}

fn fields_has(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this), Val::String(name)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, FIELDS)?;
    let (fields, _) = call.exchange().fields(index)?;
    Ok(Some(Val::Bool(fields.get(name).next().is_some())))
}

fn fields_set(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this), Val::String(name), Val::List(values)] = parameters else { return Err(other_type()) };
    let values = values.iter().map(bytes).collect::<wasmtime::Result<Vec<Bytes>>>()?;
    put(call, this, name, values, false)
}

fn fields_delete(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this), Val::String(name)] = parameters else { return Err(other_type()) };
    put(call, this, name, Vec::new(), false)
}

fn fields_append(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this), Val::String(name), value] = parameters else { return Err(other_type()) };
    let value = bytes(value)?;
    put(call, this, name, vec![value], true)
}

fn put(call: &mut Call<'_>, this: &ResourceAny, name: &str, values: Vec<Bytes>, keep: bool) -> Answer {
    let index = call.lent(this, FIELDS)?;
    let (fields, room) = call.exchange().fields(index)?;
    match fields.put(name, values, keep, room) {
        Ok(()) => ok(None),
        Err(refused) => refusal(&refused),
    }
}

fn fields_entries(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, FIELDS)?;
    let (held, _) = call.exchange().fields(index)?;
    let entry = |(name, value): &(String, Bytes)| Val::Tuple(vec![Val::String(name.clone()), list(value)]);
    Ok(Some(Val::List(held.fields.iter().map(entry).collect())))
}

fn fields_clone(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, FIELDS)?;
    let fields = call.exchange().fields(index)?.0.fields.clone();
    call.give_fields(fields, false).map(Some)
}

/// Whose request it is was never in doubt: there is one.
fn request<'a>(call: &'a mut Call<'_>, parameters: &[Val]) -> wasmtime::Result<&'a Request> {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    call.lent(this, INCOMING_REQUEST)?;
    Ok(&call.exchange().request)
}

fn request_method(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let method = &request(call, parameters)?.method;
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    Ok(Some(match known.contains(&&**method) {
        true => case(&method.to_ascii_lowercase(), None),
        false => case("other", Some(Val::String(method.to_string()))),
    }))
}

fn request_path_with_query(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let path = request(call, parameters)?.path_with_query.clone();
    Ok(Some(some(Val::String(path))))
}

fn request_scheme(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    request(call, parameters)?;
    Ok(Some(some(case("HTTP", None))))
}

fn request_authority(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let authority = request(call, parameters)?.authority.to_string();
    Ok(Some(some(Val::String(authority))))
}

fn request_headers(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let headers = request(call, parameters)?.headers.clone();
    call.give_fields(headers, true).map(Some)
}

fn request_consume(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    request(call, parameters)?;
    if std::mem::replace(&mut call.exchange().consumed, true) {
        return err(None);
    }
    let body = call.give(INCOMING_BODY, THE)?;
    ok(Some(body))
}

fn body_stream(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    call.lent(this, INCOMING_BODY)?;
    if std::mem::replace(&mut call.exchange().streamed, true) {
        return err(None);
    }
    call.store.data_mut().open_handle()?;
    let stream = call.give_stream(Resource::<InputStream>::new_own(BODY))?;
    ok(Some(stream))
}

fn body_finish(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    call.taken(this, INCOMING_BODY)?;
    call.give(FUTURE_TRAILERS, THE).map(Some)
}

fn trailers_subscribe(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    call.lent(this, FUTURE_TRAILERS)?;
    let pollable: Resource<Pollable> = call.store.data_mut().pollable(None)?;
    call.give_stream(pollable).map(Some)
}

/// The node has the body whole before a function is called, and keeps no trailers.
fn trailers_get(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    call.lent(this, FUTURE_TRAILERS)?;
    let again = std::mem::replace(&mut call.exchange().trailed, true);
    let none = || Val::Result(Ok(Some(Box::new(Val::Option(None)))));
    Ok(Some(some(Val::Result(if again { Err(None) } else { Ok(Some(Box::new(none()))) }))))
}

fn response_new(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(headers)] = parameters else { return Err(other_type()) };
    let headers = call.taken(headers, FIELDS)?;
    let headers = call.exchange().release(headers)?;
    let index = call.exchange().respond(headers)?;
    call.give(OUTGOING_RESPONSE, index).map(Some)
}

fn response_status_code(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, OUTGOING_RESPONSE)?;
    Ok(Some(Val::U16(call.exchange().status(index)?)))
}

fn response_set_status_code(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this), Val::U16(status)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, OUTGOING_RESPONSE)?;
    if call.exchange().set_status(index, *status)? { ok(None) } else { err(None) }
}

fn response_headers(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, OUTGOING_RESPONSE)?;
    let headers = call.exchange().headers(index)?;
    call.give_fields(headers, true).map(Some)
}

fn response_body(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, OUTGOING_RESPONSE)?;
    if !call.exchange().take_body(index)? {
        return err(None);
    }
    let body = call.give(OUTGOING_BODY, index)?;
    ok(Some(body))
}

fn outgoing_write(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this)] = parameters else { return Err(other_type()) };
    let index = call.lent(this, OUTGOING_BODY)?;
    if !call.exchange().take_stream(index)? {
        return err(None);
    }
    call.store.data_mut().open_handle()?;
    let stream = call.give_stream(Resource::<OutputStream>::new_own(RESPONSES.saturating_add(index)))?;
    ok(Some(stream))
}

/// Trailers are taken and dropped: the node answers with a length, and not in pieces.
fn outgoing_finish(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this), Val::Option(trailers)] = parameters else { return Err(other_type()) };
    let index = call.taken(this, OUTGOING_BODY)?;
    match trailers.as_deref() {
        Some(Val::Resource(trailers)) => {
            let trailers = call.taken(trailers, FIELDS)?;
            call.exchange().release(trailers)?;
        }
        Some(_) => return Err(other_type()),
        None => {}
    }
    match call.exchange().finish(index)? {
        Finished::Whole => ok(None),
        Finished::Length(length) => err(Some(case("HTTP-response-body-size", Some(some(Val::U64(length)))))),
    }
}

fn outparam_set(call: &mut Call<'_>, parameters: &[Val]) -> Answer {
    let [Val::Resource(this), Val::Result(response)] = parameters else { return Err(other_type()) };
    call.taken(this, RESPONSE_OUTPARAM)?;
    match response {
        Ok(Some(response)) => {
            let Val::Resource(response) = &**response else { return Err(other_type()) };
            let index = call.taken(response, OUTGOING_RESPONSE)?;
            call.exchange().send(index)?;
        }
        Err(Some(error)) => {
            let Val::Variant(code, payload) = &**error else { return Err(other_type()) };
            let words = match payload.as_deref() {
                Some(Val::Option(Some(words))) => match &**words {
                    Val::String(words) => Some(words.as_str()),
                    _ => None,
                },
                _ => None,
            };
            call.exchange().fail(code, words);
        }
        Ok(None) | Err(None) => return Err(other_type()),
    }
    Ok(None)
}

fn bytes(value: &Val) -> wasmtime::Result<Bytes> {
    let Val::List(list) = value else { return Err(other_type()) };
    let byte = |value: &Val| if let Val::U8(byte) = value { Ok(*byte) } else { Err(other_type()) };
    Ok(Bytes::from(list.iter().map(byte).collect::<wasmtime::Result<Vec<u8>>>()?))
}

fn list(value: &Bytes) -> Val {
    Val::List(value.iter().copied().map(Val::U8).collect())
}

fn case(name: &str, payload: Option<Val>) -> Val {
    Val::Variant(name.to_owned(), payload.map(Box::new))
}

fn some(value: Val) -> Val {
    Val::Option(Some(Box::new(value)))
}

fn ok(value: Option<Val>) -> Answer {
    Ok(Some(Val::Result(Ok(value.map(Box::new)))))
}

fn err(value: Option<Val>) -> Answer {
    Ok(Some(Val::Result(Err(value.map(Box::new)))))
}

fn refusal(refused: &Refused) -> Answer {
    err(Some(case(refused.name()?, None)))
}
