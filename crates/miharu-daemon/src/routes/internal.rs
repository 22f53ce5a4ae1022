//! `/internal`: what only the command line needs, on the unix socket alone.

use std::sync::Arc;

use axum::extract::State;
use miharu_api::{CertificateRenewal, Diagnosis, RenewedCertificate, this_build};
use miharu_collect::host::own_addresses;

use crate::app::App;
use crate::auth::LocalOnly;
use crate::doctor::{Patient, examine};
use crate::respond::{Answer, ApiError, Json, done, ok};
use crate::sandbox;

/// `GET /internal/ready`: the socket is served only once everything else is, so an answer is all there is to it.
pub(super) async fn ready(_: LocalOnly) -> Answer {
    done()
}

/// `GET /internal/build`: what this program was built from.
pub(super) async fn build(_: LocalOnly) -> Answer {
    let mut build = this_build!();
    build.libraries += &format!(", SQLite {}", miharu_store::sqlite_version());
    ok(build)
}

/// `GET /internal/doctor`: what the daemon may do, what confines it, and what it finds on its host.
pub(super) async fn doctor(_: LocalOnly, State(app): State<Arc<App>>) -> Answer {
    let plan = app.plan();
    let found = app.finder.find(Arc::clone(&plan.whole.chosen)).await.ok();
    let patient = Patient {
        roots: app.roots.clone(),
        settings: plan.settings.clone(),
        warnings: app.warnings.clone(),
        runtimes: found.map(|found| found.into_iter().map(|instance| instance.runtime).collect()),
    };
    let checks = sandbox::look(move || examine(&patient)).await.map_err(ApiError::internal)?;
    ok(Diagnosis { checks })
}

/// `POST /internal/reload`: reads the server's certificate and the clients' authority again, as SIGHUP does.
pub(super) async fn reload(_: LocalOnly, State(app): State<Arc<App>>) -> Answer {
    let reload = tokio::task::spawn_blocking(move || app.tls.reload());
    reload.await.map_err(ApiError::internal)?;
    done()
}

/// `POST /internal/renew-certificate`: makes the server's own certificate anew, for the machine's names and addresses of
/// now and the ones asked for. Tells the new certificate, which clients that pin it need.
pub(super) async fn renew_certificate(
    _: LocalOnly,
    State(app): State<Arc<App>>,
    Json(body): Json<CertificateRenewal>,
) -> Answer {
    let renewal = move || {
        let own = app.machine.certificate_names(&own_addresses(&app.roots));
        let identity = app.tls.identity();
        let refused = |error| ApiError::bad_request(format!("{error:#}"));
        identity.renew(own, body.san).map_err(refused)?;
        Ok::<_, ApiError>(RenewedCertificate {
            certificate: identity.pem(),
            fingerprint: identity.fingerprint(),
        })
    };
    let renewed = tokio::task::spawn_blocking(renewal).await.map_err(ApiError::internal)??;
    ok(renewed)
}
