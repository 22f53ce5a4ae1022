//! Certificates that end soon, the server's own and those of trusted clients, and what is wrong with their authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use miharu_metrics::server::CertificateEnd;
use miharu_store::{ParsedCertificate, State};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::app::App;
use crate::cluster::counts_here;
use crate::respond::path;
use crate::tls::Tls;
use crate::warnings::{Group, Kind, Problem};

/// How long before its end a certificate is warned of.
const NOTICE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often certificates are looked at.
const PAUSE: Duration = Duration::from_secs(300);

/// What the one certificate that all members of a cluster show is counted under.
const SHOWN: &str = "cluster.crt";

/// Looks at the certificates from time to time. Ends with the daemon.
pub(crate) async fn watch(app: Arc<App>) {
    let mut pause = tokio::time::interval(PAUSE);
    loop {
        pause.tick().await;
        check(&app);
    }
}

/// Looks at the certificates as they are now.
pub(crate) fn check(app: &App) {
    let now = SystemTime::now();
    let own = app.tls.identity().not_after();
    let mut problems: Vec<Problem> = own
        .into_iter()
        .filter_map(|not_after| {
            let (what, advice) = if app.tls.identity().shows_cluster() {
                (
                    "the cluster's certificate",
                    "'miharu cluster update-certificate' makes a new one for all members",
                )
            } else {
                ("the server's own certificate", "'miharu admin renew-certificate' makes a new one")
            };
            problem(what, not_after, advice, now, NOTICE)
        })
        .collect();
    let state = app.store.load();
    let cluster = state.cluster.as_deref();
    if !counts_here(cluster, SHOWN) {
        problems = problems.into_iter().map(Problem::elsewhere).collect();
    }
    let authority = app.tls.authority().problems(now);
    problems.extend(authority.into_iter().map(|message| {
        let cause = message.clone();
        Problem::of_server(Kind::Authority, &cause, message)
    }));
    for entry in state.certificates.values() {
        let certificate = &entry.certificate;
        let fingerprint: String = certificate.fingerprint().chars().take(12).collect();
        let noun = if entry.token.is_some() { "token" } else { "certificate" };
        let what = format!("the trusted {noun} '{}' ({fingerprint})", entry.name);
        let advice = "add its successor to the trust store, then remove it";
        let notice = if entry.token.is_some() { notice_of_token(certificate) } else { NOTICE };
        let problem = problem(&what, certificate.not_after(), advice, now, notice);
        problems.extend(problem.map(|problem| {
            let problem = Problem {
                cause: certificate.fingerprint().to_owned(),
                entity: path("certificates", certificate.fingerprint()),
                ..problem
            };
            if counts_here(cluster, certificate.fingerprint()) { problem } else { problem.elsewhere() }
        }));
    }
    app.warnings.replace(Group::Certificates, problems);
}

/// When the certificates end on which scrapes depend, as figures: the one that the server shows, and of its clients' authority and
/// of the trusted ones the first that has not ended by `now`, seconds since 1970. Bearer tokens are none of them: they may be
/// made for days. What a cluster has once is told by one member, as warnings are.
pub(crate) fn ends(state: &State, tls: &Tls, now: i64) -> Vec<CertificateEnd> {
    let cluster = state.cluster.as_deref();
    let entries = state.certificates.values().filter(|entry| entry.token.is_none());
    let trusted = entries
        .map(|entry| &entry.certificate)
        .filter(|certificate| {
            certificate.not_after() > now && counts_here(cluster, certificate.fingerprint())
        })
        .map(ParsedCertificate::not_after)
        .min();
    let shown = tls.identity().not_after().filter(|_| counts_here(cluster, SHOWN));
    let all = [("server", shown), ("authority", tls.authority().first_end(now)), ("trusted", trusted)];
    let known = all.into_iter().filter_map(|(certificate, end)| {
        Some(CertificateEnd { certificate, end_seconds: u64::try_from(end?).ok()? })
    });
    known.collect()
}

/// A token may have been made for a few days alone: it is warned of in the last third of its life.
fn notice_of_token(stand_in: &ParsedCertificate) -> Duration {
    let life = stand_in.not_after().saturating_sub(stand_in.not_before());
    NOTICE.min(Duration::from_secs(u64::try_from(life).unwrap_or(0) / 3))
}

fn problem(what: &str, not_after: i64, advice: &str, now: SystemTime, notice: Duration) -> Option<Problem> {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(not_after).unwrap_or(0));
    let day =
        OffsetDateTime::from(end).format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC"));
    let day = day.unwrap_or_default();
    let (kind, verb) = match end.duration_since(now) {
        Ok(left) if left > notice => return None,
        Ok(_) => (Kind::CertificateExpires, "ends at"),
        Err(_) => (Kind::CertificateExpired, "ended at"),
    };
    Some(Problem::of_server(kind, "", format!("{what} {verb} {day}: {advice}")))
}
