//! Certificates that an authority signed, revoked, or never saw.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer as Signer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::OffsetDateTime;

use super::*;

/// An authority with its key.
pub(crate) struct Ca {
    pub(crate) pem: String,
    signer: Signer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, signer: Signer::new(params, key) }
    }

    /// A certificate with this serial number, DER.
    pub(crate) fn sign(&self, serial: u64, usage: Option<ExtendedKeyUsagePurpose>) -> Vec<u8> {
        self.sign_until(serial, usage, OffsetDateTime::now_utc() + time::Duration::days(30))
    }

    fn sign_until(
        &self,
        serial: u64,
        usage: Option<ExtendedKeyUsagePurpose>,
        end: OffsetDateTime,
    ) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = usage.into_iter().collect();
        params.not_before = OffsetDateTime::now_utc() - time::Duration::days(60);
        params.not_after = end;
        params.signed_by(&KeyPair::generate().unwrap(), &self.signer).unwrap().der().to_vec()
    }

    /// A revocation list, PEM and DER.
    pub(crate) fn revoke(&self, serials: &[u64], next: time::Duration) -> (String, Vec<u8>) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: OffsetDateTime::now_utc(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: OffsetDateTime::now_utc() - time::Duration::days(10),
            next_update: OffsetDateTime::now_utc() + next,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.signer).unwrap();
        (list.pem().unwrap(), list.der().to_vec())
    }
}

struct Bench {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path());
        Self { dir, authority }
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
        self.authority.reload();
    }

    fn judge(&self, der: &[u8]) -> Verdict {
        self.authority.judge(der, SystemTime::now())
    }

    fn problem(&self) -> String {
        self.authority.problems(SystemTime::now()).join("; ")
    }
}

const CLIENT: Verdict = Verdict::Signed(Purpose::Client);

#[test]
fn only_what_the_authority_signed_and_did_not_revoke_counts() {
    let bench = Bench::new();
    let (ca, impostor) = (Ca::new("ca"), Ca::new("ca"));
    let (first, second) = (ca.sign(1, None), ca.sign(2, Some(ExtendedKeyUsagePurpose::ClientAuth)));
    assert_eq!(bench.judge(&first), Verdict::NoAuthority);
    bench.put("server.ca", &ca.pem);
    assert_eq!((bench.judge(&first), bench.judge(&second)), (CLIENT, CLIENT));
    let server = ca.sign(3, Some(ExtendedKeyUsagePurpose::ServerAuth));
    assert_eq!(bench.judge(&server), Verdict::Signed(Purpose::Other));
    let expired = ca.sign_until(4, None, OffsetDateTime::now_utc() - time::Duration::days(1));
    for refused in [&impostor.sign(1, None), &Ca::new("other").sign(1, None), &expired, &b"rubbish".to_vec()]
    {
        assert_eq!(bench.judge(refused), Verdict::Refused);
    }
    let (pem, der) = ca.revoke(&[1, 700], time::Duration::days(10));
    for list in [pem.as_bytes(), &der] {
        bench.put("ca.crl", list);
        assert_eq!((bench.judge(&first), bench.judge(&second)), (Verdict::Refused, CLIENT));
    }
    assert_eq!(bench.problem(), "");
    std::fs::remove_file(bench.dir.path().join("ca.crl")).unwrap();
    bench.put("server.ca", format!("{}{}", impostor.pem, ca.pem));
    assert_eq!((bench.judge(&first), bench.judge(&impostor.sign(1, None))), (CLIENT, CLIENT));
}

#[test]
fn a_broken_file_refuses_every_certificate_and_says_why() {
    let bench = Bench::new();
    let (ca, other) = (Ca::new("ca"), Ca::new("ca"));
    let signed = ca.sign(1, None);
    let no_authority = CertificateParams::new(vec!["x".to_owned()]).unwrap();
    let no_authority = no_authority.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    for (content, why) in [
        ("", "no certificate in PEM form"),
        ("rubbish", "no certificate in PEM form"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "broken certificate"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "a PRIVATE KEY where certificates",
        ),
        (&no_authority, "is none of an authority"),
    ] {
        bench.put("server.ca", content);
        assert_eq!(bench.judge(&signed), Verdict::Refused, "{why}");
        assert!(bench.problem().contains(why), "{}", bench.problem());
    }
    bench.put("server.ca", &ca.pem);
    for (list, why) in [
        (Vec::new(), "no revocation list"),
        (vec![0x30, 0x82], "broken revocation list"),
        (other.revoke(&[1], time::Duration::days(1)).1, "is not signed by server.ca"),
        (ca.pem.clone().into_bytes(), "where revocation lists are expected"),
    ] {
        bench.put("ca.crl", list);
        assert_eq!(bench.judge(&signed), Verdict::Refused, "{why}");
        assert!(bench.problem().contains(why), "{}", bench.problem());
    }
    bench.put("ca.crl", ca.revoke(&[9], time::Duration::days(-1)).1);
    assert_eq!(bench.judge(&signed), CLIENT);
    assert!(bench.problem().contains("overdue"), "{}", bench.problem());
}

/// What somebody meant to be in force is not taken for nothing.
#[test]
fn a_link_that_leads_nowhere_is_an_authority_that_cannot_be_read() {
    let bench = Bench::new();
    let ca = Ca::new("ca");
    let signed = ca.sign(1, None);
    for name in ["server.ca", "ca.crl"] {
        let path = bench.dir.path().join(name);
        std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap();
        bench.authority.reload();
        assert_eq!(bench.judge(&signed), Verdict::Refused, "{name}");
        assert!(bench.problem().contains(name), "{}", bench.problem());
        std::fs::remove_file(&path).unwrap();
        bench.put("server.ca", &ca.pem);
        assert_eq!(bench.judge(&signed), CLIENT);
    }
}

#[test]
fn changed_files_are_noticed() {
    let bench = Bench::new();
    let ca = Ca::new("ca");
    let signed = ca.sign(1, None);
    assert_eq!(bench.judge(&signed), Verdict::NoAuthority);
    std::fs::write(bench.dir.path().join("server.ca"), &ca.pem).unwrap();
    std::thread::sleep(LOOK_INTERVAL);
    assert_eq!(bench.judge(&signed), CLIENT);
    std::fs::write(bench.dir.path().join("ca.crl"), "rubbish").unwrap();
    std::thread::sleep(LOOK_INTERVAL);
    assert_eq!(bench.judge(&signed), Verdict::Refused);
}

proptest::proptest! {
    #[test]
    fn no_file_and_no_certificate_panics(cut in 0_usize..700, at in 0_usize..700, byte: u8) {
        let ca = Ca::new("ca");
        let mut list = ca.revoke(&[1, 2], time::Duration::days(1)).1;
        let mut leaf = ca.sign(1, None);
        for der in [&mut list, &mut leaf] {
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            der.truncate(cut);
        }
        let issuers = authorities(ca.pem.as_bytes()).unwrap();
        let known: Vec<&[u8]> = issuers.iter().map(|issuer| issuer.der.as_slice()).collect();
        let _ = Revoked::read(&list, &known);
        let _ = authorities(&list);
        let force = InForce { authorities: issuers, revoked: Revoked::default() };
        let _ = force.judge(&leaf, SystemTime::now());
    }
}
