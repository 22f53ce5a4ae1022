//! A connection to one etcd server: each call with a deadline, and every failure in words.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::codec::UNWATCHED;
use super::rpc::{
    AuthenticateRequest, AuthenticateResponse, Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, PutRequest, RangeRequest, RangeResponse, Request as Operation, RequestOp, Response,
    ResponseHeader, Target, TxnRequest, TxnResponse, WatchCommand, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use super::settings::EtcdAccess;
use crate::token::Secret;

/// How long a connection may take to be made, TLS and login with it.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long one call may take. etcd gives up on a change without a majority after 7 s; who asks here is told sooner.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(4);
/// The largest answer that is taken, in bytes. etcd's own limit of a request is 1.5 MiB, so a page of a few keys fits.
const ANSWER_LIMIT: usize = 8 << 20;
/// How many keys are asked for at a time.
const PAGE: i64 = 256;
/// How much may lie under the prefix, in keys and bytes: far beyond what 1,000 members and their trust store need.
const KEYS_LIMIT: usize = 200_000;
const BYTES_LIMIT: usize = 128 << 20;

/// Why etcd did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// It did not answer, or said that it cannot now; whether it did what it was asked is not known.
    #[error("{0}")]
    Away(String),
    /// It does not let this server in, or not do this.
    #[error("{0}")]
    Denied(String),
    /// What it said is longer than anything of ours.
    #[error("an answer longer than {} MiB", ANSWER_LIMIT >> 20)]
    TooLong,
    /// It is there, but what it holds is not what was expected.
    #[error("{0}")]
    Unexpected(String),
}

/// A connection. Its clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    /// Where it leads.
    pub(crate) endpoint: String,
}

/// Everything under a prefix at one revision.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) revision: i64,
    /// Which etcd it is, by the id that it gave itself.
    pub(crate) etcd: u64,
    pub(crate) entries: Vec<KeyValue>,
    /// Keys whose values are too long to be fetched at all.
    pub(crate) too_long: Vec<Vec<u8>>,
}

impl Client {
    /// Connects, and logs in where there is a user.
    pub(crate) async fn connect(access: &EtcdAccess, endpoint: &str) -> Result<Self, Failure> {
        let connecting = async {
            let address = end_of(access, endpoint)?;
            let channel = address.connect().await.map_err(|error| Failure::Away(chain(&error)))?;
            let mut client = Self { channel, token: None, endpoint: endpoint.to_owned() };
            if let Some((name, password)) = &access.user {
                client.log_in(name, password).await?;
            }
            Ok(client)
        };
        match timeout(CONNECT_LIMIT, connecting).await {
            Ok(done) => done,
            Err(_) => Err(Failure::Away(format!("no answer within {} s", CONNECT_LIMIT.as_secs()))),
        }
    }

    async fn log_in(&mut self, name: &str, password: &Secret) -> Result<(), Failure> {
        let request = AuthenticateRequest { name: name.to_owned(), password: password.reveal().to_owned() };
        let answer: AuthenticateResponse = self.call("/etcdserverpb.Auth/Authenticate", request).await?;
        let token = answer.token.parse::<MetadataValue<Ascii>>();
        let mut token = token.map_err(|_| Failure::Unexpected("a login token that is none".to_owned()))?;
        token.set_sensitive(true);
        self.token = Some(token);
        Ok(())
    }

    /// One key, if it is there, and the revision at which that held. Read through the majority.
    pub(crate) async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), Failure> {
        let request = RangeRequest { key: key.as_bytes().to_vec(), ..RangeRequest::default() };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        Ok((answer.kvs.into_iter().next(), revision))
    }

    /// One key as it was at an earlier revision, if it was there.
    pub(crate) async fn get_at(&self, key: &str, revision: i64) -> Result<Option<KeyValue>, Failure> {
        let request = RangeRequest { key: key.as_bytes().to_vec(), revision, ..RangeRequest::default() };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs.into_iter().next())
    }

    /// Several keys at one moment, and which etcd held them at which revision.
    pub(crate) async fn get_all(
        &self,
        keys: &[String],
    ) -> Result<(Vec<Option<KeyValue>>, ResponseHeader), Failure> {
        let request =
            TxnRequest { success: keys.iter().map(|key| read(key)).collect(), ..TxnRequest::default() };
        let answer: TxnResponse = self.call("/etcdserverpb.KV/Txn", request).await?;
        let header = answer.header.clone().unwrap_or_default();
        Ok((ranges(answer), header))
    }

    /// Does `success` if all of `compare` holds, and says what `failure` reads otherwise.
    pub(crate) async fn transact(
        &self,
        compare: Vec<Compare>,
        success: Vec<RequestOp>,
        failure: &[String],
    ) -> Result<Outcome, Failure> {
        let failure = failure.iter().map(|key| read(key)).collect();
        let request = TxnRequest { compare, success, failure };
        let answer: TxnResponse = self.call("/etcdserverpb.KV/Txn", request).await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        Ok(if answer.succeeded { Outcome::Done(revision) } else { Outcome::Differs(ranges(answer)) })
    }

    /// Everything that members watch under a prefix.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Listing, Failure> {
        self.list_until(prefix, &end_of_watched(prefix)).await
    }

    /// Everything under a prefix.
    pub(crate) async fn list_all(&self, prefix: &str) -> Result<Listing, Failure> {
        self.list_until(prefix, &end_of_prefix(prefix)).await
    }

    /// A value that is too long for an answer is left out, and its key is told.
    async fn list_until(&self, prefix: &str, end: &[u8]) -> Result<Listing, Failure> {
        let (mut listing, mut from, mut limit, mut bytes) =
            (Listing::default(), prefix.as_bytes().to_vec(), PAGE, 0);
        loop {
            let request = RangeRequest {
                key: from.clone(),
                range_end: end.to_vec(),
                limit,
                revision: listing.revision,
                keys_only: false,
            };
            let answer: RangeResponse = match self.call("/etcdserverpb.KV/Range", request.clone()).await {
                Ok(answer) => answer,
                Err(Failure::TooLong) if limit > 1 => {
                    limit /= 4;
                    continue;
                }
                Err(Failure::TooLong) => {
                    let request = RangeRequest { keys_only: true, limit: 1, ..request };
                    let mut answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
                    listing.too_long.extend(answer.kvs.iter().map(|kv| kv.key.clone()));
                    answer.kvs.iter_mut().for_each(|kv| kv.value.clear());
                    limit = PAGE;
                    answer
                }
                Err(failure) => return Err(failure),
            };
            if let Some(header) = answer.header.filter(|_| listing.revision == 0) {
                (listing.revision, listing.etcd) = (header.revision, header.cluster_id);
            }
            let Some(last) = answer.kvs.last() else { return Ok(listing) };
            from = [last.key.as_slice(), &[0]].concat();
            bytes += answer.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
            let known = listing.too_long.last().cloned();
            listing.entries.extend(answer.kvs.into_iter().filter(|kv| Some(&kv.key) != known.as_ref()));
            if listing.entries.len() + listing.too_long.len() > KEYS_LIMIT || bytes > BYTES_LIMIT {
                return Err(Failure::Unexpected(format!(
                    "more lies under {prefix} than {KEYS_LIMIT} keys or {} MiB",
                    BYTES_LIMIT >> 20
                )));
            }
            if !answer.more {
                return Ok(listing);
            }
        }
    }

    /// Tells of every change from this revision on under a prefix, but of what nobody watches.
    pub(crate) async fn watch(
        &self,
        prefix: &str,
        revision: i64,
    ) -> Result<Streaming<WatchResponse>, Failure> {
        let create = WatchCreateRequest {
            key: prefix.as_bytes().to_vec(),
            range_end: end_of_watched(prefix),
            start_revision: revision,
        };
        let create = WatchRequest { command: Some(WatchCommand::Create(create)) };
        // The side of the requests stays open: etcd ends the watch with it.
        let requests = tokio_stream::once(create).chain(tokio_stream::pending());
        let mut request = self.request(requests);
        // A server that is cut off from the majority ends the watch rather than go silent.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let opening = async {
            let mut grpc = self.grpc();
            grpc.ready().await.map_err(|error| Failure::Away(chain(&error)))?;
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            let answer = grpc.streaming(request, path, ProstCodec::default()).await;
            answer.map(tonic::Response::into_inner).map_err(failure)
        };
        timed(opening).await
    }

    /// A new lease of so many seconds.
    pub(crate) async fn grant(&self, ttl: i64) -> Result<i64, Failure> {
        let answer: LeaseGrantResponse =
            self.call("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl }).await?;
        if answer.error.is_empty() { Ok(answer.id) } else { Err(Failure::Away(answer.error)) }
    }

    /// Keeps a lease; whether it is still there.
    pub(crate) async fn keep(&self, lease: i64) -> Result<bool, Failure> {
        let request = self.request(tokio_stream::once(LeaseKeepAliveRequest { id: lease }));
        let keeping = async {
            let mut grpc = self.grpc();
            grpc.ready().await.map_err(|error| Failure::Away(chain(&error)))?;
            let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
            let answer = grpc.streaming(request, path, ProstCodec::default()).await.map_err(failure)?;
            let kept: Option<LeaseKeepAliveResponse> =
                answer.into_inner().message().await.map_err(failure)?;
            Ok(kept.is_some_and(|kept| kept.ttl > 0))
        };
        timed(keeping).await
    }

    /// Ends a lease, and what hangs on it.
    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), Failure> {
        let request = LeaseRevokeRequest { id: lease };
        let LeaseRevokeResponse {} = self.call("/etcdserverpb.Lease/LeaseRevoke", request).await?;
        Ok(())
    }

    async fn call<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Failure>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let request = self.request(message);
        let calling = async {
            let mut grpc = self.grpc();
            grpc.ready().await.map_err(|error| Failure::Away(chain(&error)))?;
            let answer = grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::default()).await;
            answer.map(tonic::Response::into_inner).map_err(failure)
        };
        timed(calling).await
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.endpoint).finish()
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// It was made, and led to this revision.
    Done(i64),
    /// What it compared did not hold, and nothing was changed; what was read then, in the order of the keys.
    Differs(Vec<Option<KeyValue>>),
}

/// That the key is there as of this change of it; 0 for its not being there.
pub(crate) fn modified_at(key: &str, revision: i64) -> Compare {
    Compare { result: 0, target: 2, key: key.as_bytes().to_vec(), value: Some(Target::Modified(revision)) }
}

/// That the key was made at this revision, whatever happened to it since; 0 for its not being there.
pub(crate) fn created_at(key: &str, revision: i64) -> Compare {
    Compare { result: 0, target: 1, key: key.as_bytes().to_vec(), value: Some(Target::Created(revision)) }
}

/// That the key holds this.
pub(crate) fn holds(key: &str, value: &str) -> Compare {
    Compare {
        result: 0,
        target: 3,
        key: key.as_bytes().to_vec(),
        value: Some(Target::Value(value.as_bytes().to_vec())),
    }
}

/// Gives a key a value, for as long as the lease where it is not 0.
pub(crate) fn put(key: &str, value: impl Into<Vec<u8>>, lease: i64) -> RequestOp {
    let put = PutRequest { key: key.as_bytes().to_vec(), value: value.into(), lease };
    RequestOp { request: Some(Operation::Put(put)) }
}

/// Takes a key away.
pub(crate) fn delete(key: &str) -> RequestOp {
    let delete = DeleteRangeRequest { key: key.as_bytes().to_vec(), range_end: Vec::new() };
    RequestOp { request: Some(Operation::DeleteRange(delete)) }
}

/// Takes all keys under a prefix away.
pub(crate) fn delete_all(prefix: &str) -> RequestOp {
    let delete = DeleteRangeRequest { key: prefix.as_bytes().to_vec(), range_end: end_of_prefix(prefix) };
    RequestOp { request: Some(Operation::DeleteRange(delete)) }
}

fn read(key: &str) -> RequestOp {
    let range = RangeRequest { key: key.as_bytes().to_vec(), ..RangeRequest::default() };
    RequestOp { request: Some(Operation::Range(range)) }
}

fn ranges(answer: TxnResponse) -> Vec<Option<KeyValue>> {
    let one = |response| match response {
        Some(Response::Range(range)) => range.kvs.into_iter().next(),
        None => None,
    };
    answer.responses.into_iter().map(|operation| one(operation.response)).collect()
}

/// The first key after all that begin with the prefix, which ends in `/`.
fn end_of_prefix(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// The first key under the prefix that is not watched.
fn end_of_watched(prefix: &str) -> Vec<u8> {
    [prefix, UNWATCHED].concat().into_bytes()
}

fn end_of(access: &EtcdAccess, endpoint: &str) -> Result<Endpoint, Failure> {
    let wrong = |error: tonic::transport::Error| Failure::Denied(chain(&error));
    let address = Endpoint::from_shared(endpoint.to_owned())
        .map_err(wrong)?
        .connect_timeout(CONNECT_LIMIT)
        // A connection that leads nowhere is found out without waiting for the kernel, which tries for minutes.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .tcp_nodelay(true);
    if !endpoint.starts_with("https:") {
        return Ok(address);
    }
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &access.ca_pem {
        tls = tls.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some((certificate, key)) = &access.client_pem {
        tls = tls.identity(Identity::from_pem(certificate, key.reveal()));
    }
    address.tls_config(tls).map_err(wrong)
}

async fn timed<T>(doing: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match timeout(CALL_LIMIT, doing).await {
        Ok(done) => done,
        Err(_) => Err(Failure::Away(format!("no answer within {} s", CALL_LIMIT.as_secs()))),
    }
}

/// What a status of gRPC means here.
pub(crate) fn failure(status: Status) -> Failure {
    let words: String = status.message().chars().filter(|c| !c.is_control()).take(300).collect();
    match status.code() {
        // tonic says so of an answer beyond the limit, etcd of a revision beyond its history.
        Code::OutOfRange if !words.contains("etcdserver") => Failure::TooLong,
        Code::Unauthenticated | Code::PermissionDenied => Failure::Denied(words),
        Code::FailedPrecondition => Failure::Denied(words),
        Code::InvalidArgument if words.contains("auth") || words.contains("user name") => {
            Failure::Denied(words)
        }
        // Too long a request, or too many operations: it says so before it does anything.
        Code::InvalidArgument => Failure::Unexpected(words),
        _ if words.is_empty() => Failure::Away(format!("{:?}", status.code())),
        _ => Failure::Away(words),
    }
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_next_neighbour() {
        assert_eq!(end_of_prefix("/miharu/"), b"/miharu0");
        let end = end_of_watched("/miharu/");
        assert!(
            b"/miharu/tokens/\xff".as_slice() < end.as_slice()
                && end.as_slice() < b"/miharu/~status/a".as_slice()
        );
    }

    #[test]
    fn statuses_are_sorted_by_what_to_do_next() {
        assert_eq!(failure(Status::out_of_range("decoded message length too large")), Failure::TooLong);
        let compacted = Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        assert!(matches!(failure(compacted), Failure::Away(_)));
        assert!(matches!(
            failure(Status::permission_denied("etcdserver: permission denied")),
            Failure::Denied(_)
        ));
        assert!(matches!(failure(Status::unavailable("etcdserver: no leader")), Failure::Away(_)));
    }
}
