//! Certificates for servers and clients of a test, from an authority that nobody else trusts.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

/// Signs certificates.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

/// A certificate and its key, in PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key, not encrypted (PKCS #8).
    pub key: String,
}

impl Authority {
    /// A new one, which signs itself.
    pub fn new(name: &str) -> Self {
        let key = new_key();
        let mut builder = builder(&common_name(name), &common_name(name), &key);
        let constraints = BasicConstraints::new().critical().ca().build().expect("describe an authority");
        builder.append_extension(constraints).expect("describe an authority");
        let usage = KeyUsage::new().critical().key_cert_sign().crl_sign().build().expect("describe its key");
        builder.append_extension(usage).expect("describe its key");
        builder.sign(&key, MessageDigest::sha256()).expect("sign an authority");
        Self { certificate: builder.build(), key }
    }

    /// Its own certificate in PEM.
    pub fn pem(&self) -> String {
        pem(self.certificate.to_pem())
    }

    /// A certificate for a host, by its name and its address.
    pub fn of_host(&self, host: &str, address: Option<&str>) -> Identity {
        let key = new_key();
        let mut builder = builder(&common_name(host), self.certificate.subject_name(), &key);
        let mut names = SubjectAlternativeName::new();
        names.dns(host);
        if let Some(address) = address {
            names.ip(address);
        }
        let names = names.build(&builder.x509v3_context(Some(&self.certificate), None)).expect("name a host");
        builder.append_extension(names).expect("name a host");
        builder.sign(&self.key, MessageDigest::sha256()).expect("sign a certificate");
        Identity { certificate: pem(builder.build().to_pem()), key: pem(key.private_key_to_pem_pkcs8()) }
    }
}

fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("know a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("make a key")).expect("make a key")
}

fn common_name(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("make a name");
    builder.append_entry_by_nid(Nid::COMMONNAME, name).expect("make a name");
    builder.build()
}

fn builder(
    subject: &openssl::x509::X509NameRef,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
) -> X509Builder {
    let build = || -> Result<X509Builder, openssl::error::ErrorStack> {
        let mut builder = X509::builder()?;
        builder.set_version(2)?;
        let mut serial = BigNum::new()?;
        serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
        builder.set_serial_number(&*serial.to_asn1_integer()?)?;
        builder.set_subject_name(subject)?;
        builder.set_issuer_name(issuer)?;
        builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
        builder.set_not_after(&*Asn1Time::days_from_now(2)?)?;
        builder.set_pubkey(key)?;
        Ok(builder)
    };
    build().expect("begin a certificate")
}

fn pem(encoded: Result<Vec<u8>, openssl::error::ErrorStack>) -> String {
    String::from_utf8(encoded.expect("write PEM")).expect("PEM is text")
}
