//! Large values in an S3 bucket: what a store promises, objects of any length, errors that say what to do.

use std::io::ErrorKind;
use std::path::Path;

use tidings::Record;
use tidings::claim_check::{BucketOptions, BucketStore, ClaimCheck, DirectoryStore, PayloadStore};
use tidings_bucket::{Bucket, BucketError, Fault};
use tidings_tests::{S3_SECRET, S3Server};

/// What one request carries at most.
const PART_BYTES: usize = 8 * 1024 * 1024;

fn bucket(server: &S3Server) -> (Bucket, String) {
    let name = server.bucket();
    let address = format!("s3://{name}/some/prefix");
    (Bucket::open(&address, &server.options()).unwrap(), name)
}

/// Bytes that are not the same in any two parts.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at / 7 + at / PART_BYTES) as u8).collect()
}

fn read(bucket: &Bucket, name: &str, limit: u64) -> Result<(Vec<u8>, u64), BucketError> {
    let mut found = Vec::new();
    let object_bytes = bucket.read(name, limit, |piece| {
        assert!(piece.len() <= PART_BYTES, "no more than a part is in memory");
        found.extend_from_slice(piece);
        Ok::<(), BucketError>(())
    })?;
    Ok((found, object_bytes))
}

/// What every store promises.
fn check_store(store: &dyn PayloadStore) {
    let (first, second) = (format!("a/{}", uuid(1)), format!("a/{}", uuid(2)));
    let missing = store.get(&first, 10).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert!(store.list("a").unwrap().is_empty());
    let large = bytes(PART_BYTES + 5);
    store.put(&first, b"a value").unwrap();
    store.put(&second, &large).unwrap();
    store.put(&format!("ab/{}", uuid(3)), b"of another topic").unwrap();
    assert_eq!(store.get(&first, 7).unwrap(), b"a value");
    assert_eq!(store.get(&first, 700).unwrap(), b"a value");
    assert!(store.get(&second, large.len() as u64).unwrap() == large);
    assert_eq!(store.get(&second, 100).unwrap(), large[..101], "one more than promised, and no more");
    let mut names = store.list("a").unwrap();
    names.sort();
    assert_eq!(names, [first.clone(), second]);
    store.delete(&first).unwrap();
    store.delete(&first).unwrap();
    assert_eq!(store.get(&first, 7).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.list("a").unwrap().len(), 1);
}

fn uuid(number: u8) -> String {
    format!("01943d8c-0000-7000-8000-0000000000{number:02x}")
}

#[test]
fn directories_and_buckets_are_stores_alike() {
    let directory = tempfile::tempdir().unwrap();
    check_store(&DirectoryStore::open(directory.path()).unwrap());
    let server = S3Server::shared();
    let address = format!("s3://{}/payloads", server.bucket());
    check_store(&BucketStore::open(&address, &server.options()).unwrap());
}

/// A bucket that is not there may be made; a payload that is missing is not made by waiting.
#[test]
fn a_missing_bucket_is_no_missing_payload() {
    let server = S3Server::shared();
    let store = BucketStore::open("s3://nowhere/payloads", &server.options()).unwrap();
    let error = store.get(&format!("a/{}", uuid(1)), 10).unwrap_err();
    assert!(error.kind() != ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("the bucket does not exist"), "{error}");
    let claims = ClaimCheck::new(store, 1);
    let error = claims.check_in(Record::new("a").value("a value")).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn objects_of_any_length_come_back() {
    let server = S3Server::shared();
    let (bucket, _) = bucket(&server);
    assert!(bucket.is_empty().unwrap());
    let lengths = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 3 * PART_BYTES + 17];
    for (number, count) in lengths.into_iter().enumerate() {
        let (name, expect) = (format!("object-{number}"), bytes(count));
        let mut upload = bucket.upload(&name, count as u64).unwrap();
        for piece in expect.chunks(1_000_003) {
            upload.write(piece).unwrap();
        }
        upload.finish().unwrap();
        let (found, object_bytes) = read(&bucket, &name, count as u64).unwrap();
        assert!(found == expect && object_bytes == count as u64, "{count}");
        let (found, object_bytes) = read(&bucket, &name, 10).unwrap();
        assert_eq!((&found[..], object_bytes), (&expect[..count.min(10)], count as u64));
    }
    let found: Vec<_> = bucket.list("").unwrap().iter().map(|object| object.bytes as usize).collect();
    assert_eq!(found, lengths);
    assert!(!bucket.is_empty().unwrap());
    assert!(matches!(bucket.put_new("object-1", vec![2]).unwrap_err().fault(), Fault::Exists));
    bucket.put_new("object-9", vec![2]).unwrap();
    assert_eq!(bucket.look("object-9").unwrap(), Some(vec![2]));
    assert_eq!(bucket.look("object-10").unwrap(), None);
}

/// The first part of one object and the second of another are no object.
#[test]
fn what_is_replaced_while_it_is_read_is_told() {
    let server = S3Server::shared();
    let (bucket, _) = bucket(&server);
    bucket.put("object", &bytes(2 * PART_BYTES)).unwrap();
    let mut is_first = true;
    let read = bucket.read("object", u64::MAX, |_| {
        if std::mem::take(&mut is_first) {
            bucket.put("object", &vec![7; 2 * PART_BYTES])?;
        }
        Ok::<(), BucketError>(())
    });
    assert!(matches!(read.unwrap_err().fault(), Fault::Replaced));
}

/// How many uploads the server keeps parts of.
fn unfinished(folder: &Path) -> usize {
    let uploads = std::fs::read_dir(folder.join(".sgwtmp/multipart")).into_iter().flatten();
    uploads.map(|object| std::fs::read_dir(object.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn an_upload_that_is_dropped_leaves_nothing() {
    let server = S3Server::shared();
    let (bucket, name) = bucket(&server);
    let begin = || {
        let mut upload = bucket.upload("object", 3 * PART_BYTES as u64).unwrap();
        upload.write(&bytes(3 * PART_BYTES - 1)).unwrap();
        assert_eq!(unfinished(&server.folder(&name)), 1);
        upload
    };
    drop(begin());
    assert_eq!(unfinished(&server.folder(&name)), 0, "the server has freed what it had");
    // The control: an upload that nobody aborts stays.
    std::mem::forget(begin());
    assert_eq!(unfinished(&server.folder(&name)), 1);
    assert!(bucket.is_empty().unwrap(), "and is seen by nobody");
}

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    let server = S3Server::shared();
    let name = server.bucket();
    let check = |options: BucketOptions, bucket: &str, expect: &str, hint: &str| {
        let address = format!("s3://{bucket}/some/prefix");
        let opened = Bucket::open(&address, &options);
        let error = opened.and_then(|bucket| bucket.is_empty()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{address}: {expect}")), "{error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
        assert!(!format!("{error} {error:?}").contains(S3_SECRET), "{error:?}");
    };
    let good = server.options();
    check(good.clone(), "nowhere", "the bucket does not exist", "make the bucket");
    let wrong = BucketOptions { secret_access_key: Some("wrong".into()), ..good.clone() };
    check(wrong, &name, "the credentials are wrong (SignatureDoesNotMatch)", "AWS_SECRET_ACCESS_KEY");
    let wrong = BucketOptions { access_key_id: Some("nobody".into()), ..good.clone() };
    // Amazon says `InvalidAccessKeyId`.
    check(wrong, &name, "XAdminUserNotFound: No user exists with the provided access key ID", "");
    let wrong = BucketOptions { region: Some("eu-north-1".into()), ..good.clone() };
    check(wrong, &name, "the bucket is in another region", "AWS_REGION");
    let nobody = BucketOptions { endpoint: Some("http://127.0.0.1:9".into()), ..good.clone() };
    check(nobody, &name, "the server does not answer: ", "AWS_ENDPOINT_URL");
    let plain = BucketOptions { allow_http: false, ..good };
    check(plain, &name, &format!("{} is not encrypted", server.endpoint()), "AWS_ALLOW_HTTP=true");
}

/// Applications block inside of async code, too; that must not end them.
#[tokio::test]
async fn a_bucket_may_be_used_and_dropped_by_async_code() {
    let server = S3Server::shared();
    let (bucket, _) = bucket(&server);
    bucket.put("object", b"a value").unwrap();
    assert_eq!(bucket.look("object").unwrap().unwrap(), b"a value");
    drop(bucket);
}
