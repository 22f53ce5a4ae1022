//! `PUT /1.0/cluster/certificate`: what all members serve with from then on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use miharu_api::ClusterCertificatePut;
use miharu_store::{Change, Cluster, ClusterCertificate, ListenAddress, ParsedCertificate, Secret};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::app::App;
use crate::auth::FullAccess;
use crate::cluster::show_certificate;
use crate::pem;
use crate::respond::{Answer, ApiError, Json, done};
use crate::tls::identity;

/// `PUT /1.0/cluster/certificate`: a pair that is given, or a new one for the members that there are.
pub(crate) async fn replace(
    State(app): State<Arc<App>>,
    _: FullAccess,
    Json(body): Json<ClusterCertificatePut>,
) -> Answer {
    super::clustered(&app)?;
    App::change(async move {
        let _one_at_a_time = app.changes.lock().await;
        let cluster = super::clustered(&app)?;
        let refused = |error: anyhow::Error| ApiError::bad_request(format!("{error:#}"));
        let (certificate_pem, key) =
            match (body.cluster_certificate.trim(), body.cluster_certificate_key.trim()) {
                ("", "") => identity::make_cluster(&names(&cluster), &body.san).map_err(refused)?,
                (certificate, key) => {
                    check(certificate, key)?;
                    (format!("{certificate}\n"), format!("{key}\n"))
                }
            };
        let served = ClusterCertificate { certificate_pem, key_pem: Secret::new(key) };
        let after = app.commit(Change::ClusterCertificate(served)).await?;
        let show = move |app: &Arc<App>| {
            show_certificate(app, &after);
            Ok(())
        };
        Ok(app.blocking(show).await?)
    })
    .await?;
    done()
}

fn check(certificate: &str, key: &str) -> Result<(), ApiError> {
    let der =
        identity::check(certificate, key).map_err(|error| ApiError::bad_request(format!("{error:#}")))?;
    let parsed = ParsedCertificate::parse(&der).map_err(|error| ApiError::bad_request(error.to_string()))?;
    if !parsed.is_valid_at(SystemTime::now()) {
        return Err(ApiError::bad_request("the certificate is not valid now: every scrape would fail"));
    }
    Ok(())
}

/// The names and addresses of the certificate that is shown now, so that nobody who asks for one of them has to ask for another,
/// then those of the members.
fn names(cluster: &Cluster) -> Vec<String> {
    let shown = cluster.certificate.as_ref().and_then(|served| pem::decode(&served.certificate_pem));
    let mut names = shown.as_deref().map(names_of).unwrap_or_default();
    names.push(cluster.name.clone());
    for member in cluster.members.values() {
        names.push(member.name.clone());
        let addresses = [&member.address, &member.metrics_address].into_iter().flatten();
        names.extend(addresses.filter_map(|address| host(address)));
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn host(address: &str) -> Option<String> {
    use miharu_store::address::Host;
    match ListenAddress::parse(address, 1).ok()?.host {
        Host::Ip(ip) => Some(ip.to_string()),
        Host::Name(name) => Some(name),
        Host::Any => None,
    }
}

fn names_of(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from).ok();
            v4.or_else(|| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from).ok())
                .map(|ip| ip.to_string())
        }
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_certificate_keeps_the_old_one_s_names() {
        let names = ["a", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let (certificate, key) = identity::make_cluster(&names, &["*.example.org".to_owned()]).unwrap();
        check(&certificate, &key).unwrap();
        let expected = ["a", "192.0.2.1", "2001:db8::1", "*.example.org"];
        assert_eq!(names_of(&pem::decode(&certificate).unwrap()), expected);
        let (_, other) = identity::make_cluster(&names, &[]).unwrap();
        for (certificate, key) in [("x", "y"), (&certificate, "y"), (&key, &key), (&certificate, &other)] {
            assert!(check(certificate, key).is_err());
        }
    }

    #[test]
    fn hosts_are_taken_off_their_ports() {
        assert_eq!(host("192.0.2.1:8443").as_deref(), Some("192.0.2.1"));
        assert_eq!(host("[2001:db8::1]:1").as_deref(), Some("2001:db8::1"));
        assert_eq!(host("m.example.org:8444").as_deref(), Some("m.example.org"));
        assert_eq!(host(":8443"), None);
    }
}
