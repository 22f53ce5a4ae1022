//! `PUT /1.0/cluster`: a lone server makes a cluster or joins one; a member leaves.

use std::sync::Arc;

use axum::extract::State;
use miharu_api::{ClusterJoinToken, ClusterPut, ClusterStore};
use miharu_collect::host::own_addresses;
use miharu_store::cluster::{Enable, Invitation, Join, Leave};
use miharu_store::{ClusterCertificate, Error, EtcdAccess, Secret};

use crate::app::App;
use crate::auth::FullAccess;
use crate::cluster::show_certificate;
use crate::respond::{Answer, ApiError, Json, done};
use crate::secrets;
use crate::tls::identity;

/// `PUT /1.0/cluster`.
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    _: FullAccess,
    Json(body): Json<ClusterPut>,
) -> Answer {
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        match (body.enabled, body.cluster_token.is_empty()) {
            (true, true) => enable(&app, body).await,
            (true, false) => join(&app, body).await,
            (false, _) => leave(&app, if body.force { Leave::Forced } else { Leave::Orderly }).await,
        }
    })
    .await?;
    done()
}

async fn enable(app: &Arc<App>, body: ClusterPut) -> Result<(), ApiError> {
    let store = body.store.filter(|store| !store.url.is_empty()).ok_or_else(|| {
        ApiError::bad_request(
            "a cluster of miharu is kept in etcd: make it with 'miharu cluster enable NAME --store etcd://HOST:2379'",
        )
    })?;
    let access = EtcdAccess::parse(&store.url).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let access = with_login(access, store)?;
    let member = body.server_name.trim().to_owned();
    let mut names = vec![member.clone(), access.cluster_name().to_owned()];
    names.extend(app.machine.certificate_names(&own_addresses(&app.roots)));
    let made = identity::make_cluster(&names, &body.san);
    let (certificate_pem, key) = made.map_err(|error| ApiError::bad_request(format!("{error:#}")))?;
    let served = ClusterCertificate { certificate_pem, key_pem: Secret::new(key) };
    let certificate = app.tls.identity().own_der();
    tracing::info!(member, store = access.url(), "makes a cluster");
    become_member(app, move |app| {
        app.store.cluster_enable(Enable { access, member, certificate, served }).map(drop)
    })
    .await
}

async fn join(app: &Arc<App>, body: ClusterPut) -> Result<(), ApiError> {
    let invitation = invitation(&body.cluster_token).map_err(ApiError::bad_request)?;
    let name = body.server_name.trim();
    if !name.is_empty() && name != invitation.member {
        return Err(ApiError::bad_request(format!(
            "the join token is for a member {}, not {name}",
            invitation.member
        )));
    }
    let store = body.store.unwrap_or_default();
    let access = match store.url.as_str() {
        "" => invitation.access.clone(),
        url => {
            let mut access =
                EtcdAccess::parse(url).map_err(|error| ApiError::bad_request(error.to_string()))?;
            access.ca_pem.clone_from(&invitation.access.ca_pem);
            access
        }
    };
    let access = with_login(access, store)?;
    let certificate = app.tls.identity().own_der();
    tracing::info!(member = invitation.member, store = access.url(), "joins a cluster");
    become_member(app, move |app| app.store.cluster_join(Join { invitation, access, certificate }).map(drop))
        .await
}

async fn leave(app: &Arc<App>, how: Leave) -> Result<(), ApiError> {
    // One that does not know whether it is a member has something to leave, too.
    let was = if app.store.is_joining() { None } else { Some(super::clustered(app)?) };
    become_member(app, move |app| app.store.cluster_leave(how).map(drop)).await?;
    match was {
        Some(was) => tracing::info!(cluster = was.name, member = was.member, "left the cluster"),
        None => tracing::info!("gave up becoming a member of a cluster"),
    }
    Ok(())
}

/// Does it, and shows the certificate that follows from it before anybody is told that it is done.
async fn become_member(
    app: &Arc<App>,
    doing: impl FnOnce(&Arc<App>) -> Result<(), Error> + Send + 'static,
) -> Result<(), ApiError> {
    let done = app.blocking(move |app| {
        doing(app)?;
        show_certificate(app, &app.store.load());
        Ok(())
    });
    Ok(done.await?)
}

/// The token, as miharu prints it or as the clients of Incus and LXD do.
fn invitation(text: &str) -> Result<Invitation, String> {
    let refusal = match Invitation::from_token(text) {
        Ok(invitation) => return Ok(invitation),
        Err(refusal) => refusal,
    };
    let wrapped: Option<ClusterJoinToken> = secrets::read_json_token(text);
    match wrapped.filter(|token| !token.secret.is_empty()) {
        Some(token) => Invitation::from_token(&token.secret),
        None => Err(refusal),
    }
}

/// The way to etcd, with what was given to log in there.
fn with_login(mut access: EtcdAccess, store: ClusterStore) -> Result<EtcdAccess, ApiError> {
    let given = |text: String| Some(text).filter(|text| !text.trim().is_empty());
    let client_pem = match (given(store.certificate), given(store.key)) {
        (Some(certificate), Some(key)) => {
            identity::check(&certificate, &key)
                .map_err(|error| ApiError::bad_request(format!("the certificate for etcd: {error:#}")))?;
            Some((certificate, Secret::new(key)))
        }
        (None, None) => None,
        _ => {
            return Err(ApiError::bad_request(
                "a certificate for etcd needs its key, and a key its certificate",
            ));
        }
    };
    let user = match (given(store.user), given(store.password)) {
        (Some(user), Some(password)) => Some((user, Secret::new(password))),
        (None, None) => None,
        _ => return Err(ApiError::bad_request("a user of etcd needs a password, and a password its user")),
    };
    let ca_pem = given(store.ca).or(access.ca_pem.clone());
    (access.ca_pem, access.client_pem, access.user) = (ca_pem, client_pem, user);
    Ok(access)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_token_is_read_as_the_originals_clients_print_it_too() {
        let own = Invitation {
            member: "b".to_owned(),
            cluster: "id".to_owned(),
            access: EtcdAccess::parse("etcd://10.0.0.1/x").unwrap(),
            fingerprint: "00".to_owned(),
            secret: Secret::new("hush".to_owned()),
            expires_at: 7,
        };
        let theirs = serde_json::json!({
            "server_name": "b", "fingerprint": "00", "addresses": [], "secret": own.to_token(), "expires_at": "2030-01-01T00:00:00Z",
        });
        let wrapped = STANDARD.encode(theirs.to_string());
        assert_eq!(invitation(&own.to_token()), Ok(own.clone()));
        assert_eq!(invitation(&wrapped), Ok(own));
        for wrong in ["", "x", &STANDARD.encode(r#"{"secret":"x"}"#), &STANDARD.encode("{}")] {
            assert!(invitation(wrong).unwrap_err().contains("no join token"), "{wrong}");
        }
    }

    #[test]
    fn half_a_login_is_none() {
        let access = || EtcdAccess::parse("etcds://a").unwrap();
        let store = |user: &str, password: &str| ClusterStore {
            user: user.to_owned(),
            password: password.to_owned(),
            ..ClusterStore::default()
        };
        assert!(with_login(access(), store("u", "p")).unwrap().user.is_some());
        for (user, password) in [("u", ""), ("", "p")] {
            assert!(with_login(access(), store(user, password)).is_err());
        }
        let key = ClusterStore { key: "x".to_owned(), ..ClusterStore::default() };
        assert!(with_login(access(), key).is_err());
    }
}
