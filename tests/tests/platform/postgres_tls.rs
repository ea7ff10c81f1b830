//! The store in a PostgreSQL server with TLS: used encrypted, and only where its certificate is what the URL asks for.

use tidings::stores::{PostgresTarget, PostgresTlsFault};
use tidings_postgres_server::{PASSWORD, PostgresServer};
use tidings_tests::{Authority, Launch, Tidings, until};

use crate::support::{ACTIVITIES, activity, until_ready, until_stored};

/// Whether each connection of the platform's to this database is encrypted.
fn encrypted(server: &PostgresServer) -> String {
    server.query(
        "postgres",
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tidings'",
    )
}

/// One server for all: it takes a second to start.
#[test]
fn activities_are_stored_over_tls() {
    let (authority, stranger) = (Authority::new("the authority of a test"), Authority::new("a stranger"));
    let identity = authority.of_host("localhost", None);
    let server = PostgresServer::start_with_tls(&identity.certificate, &identity.key);
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, authority: &Authority| {
        let path = files.path().join(name);
        std::fs::write(&path, authority.pem()).unwrap();
        path.display().to_string()
    };
    let (trusted, strange) = (file("ca.pem", &authority), file("stranger.pem", &stranger));

    let by_address = server.database();
    let by_name = by_address.replace("127.0.0.1", "localhost");
    let data = tempfile::tempdir().unwrap();
    let up =
        |url: &str| -> Tidings { Launch::up(data.path()).environment("TIDINGS_ACTIVITY_STORE", url).start() };
    let platform = up(&format!("{by_name}?sslmode=verify-full&sslrootcert={trusted}"));
    until_ready(&platform.http());
    platform.http().post(ACTIVITIES, &activity("acme", "1", 0)).expect(200);
    until_stored(&platform.http(), "acme", 1);
    assert_eq!(encrypted(&server), "t");
    drop(platform);

    let platform = up(&format!("{by_name}?sslmode=verify-full&sslrootcert={strange}"));
    until("its readiness tells that the server is not trusted", || {
        let text = String::from_utf8_lossy(&platform.http().get("/readyz").body).into_owned();
        (text.contains("certificate is not trusted") && text.contains("sslrootcert")).then_some(())
    });
    assert!(!platform.logged().contains(PASSWORD), "{}", platform.logged());
    drop(platform);

    connections_are_as_the_string_says(&server, &by_name, &by_address, &trusted, &strange);
}

fn connections_are_as_the_string_says(
    server: &PostgresServer,
    by_name: &str,
    by_address: &str,
    trusted: &str,
    strange: &str,
) {
    let check = |url: String, expected: Result<bool, PostgresTlsFault>| {
        let target: PostgresTarget = url.parse().unwrap();
        let is_encrypted = target.connect().map(|mut client| {
            let row = client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]);
            row.unwrap().get::<_, bool>(0)
        });
        let found =
            is_encrypted.map_err(|error| PostgresTlsFault::of(&error).unwrap_or_else(|| panic!("{error:?}")));
        assert_eq!(found, expected, "{url}\n{}", server.logged());
    };
    check(by_address.to_owned(), Ok(true));
    check(format!("{by_address}?sslmode=disable"), Ok(false));
    check(format!("{by_address}?sslmode=require"), Ok(true));
    check(format!("{by_address}?sslmode=require&sslrootcert={strange}"), Err(PostgresTlsFault::Untrusted));
    check(format!("{by_address}?sslmode=verify-ca&sslrootcert={trusted}"), Ok(true));
    check(format!("{by_name}?sslmode=verify-full&sslrootcert={trusted}"), Ok(true));
    check(
        format!("{by_address}?sslmode=verify-full&sslrootcert={trusted}"),
        Err(PostgresTlsFault::OtherHost),
    );
    check(format!("{by_name}?sslmode=verify-full&sslrootcert=system"), Err(PostgresTlsFault::Untrusted));
    let without = PostgresServer::shared();
    check(without.database(), Ok(false));
    check(format!("{}?sslmode=require", without.database()), Err(PostgresTlsFault::NoTls));
}
