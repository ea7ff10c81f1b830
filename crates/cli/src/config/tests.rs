use std::io::Write;

use super::*;

fn load(file: &str, environment: &[(&str, &str)], args: UpArgs) -> anyhow::Result<Config> {
    let mut named = tempfile::Builder::new().suffix(".toml").tempfile()?;
    named.write_all(file.as_bytes())?;
    let mut args = args;
    args.server.config = Some(named.path().to_owned());
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::up(&args, environment).map_err(|error| {
        anyhow::anyhow!(format!("{error:#}").replace(&*named.path().to_string_lossy(), "FILE"))
    })
}

fn broker(config: &Config) -> Vec<(&str, &str)> {
    config.broker.iter().map(|setting| (setting.key.as_str(), setting.value.as_str())).collect()
}

#[test]
fn later_sources_win() {
    let file =
        "kafka = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:1\"\ndata_dir = \"file\"\n[activity]\npartitions = 5\n";
    let config = load(file, &[], UpArgs::default()).unwrap();
    assert_eq!((config.kafka.port(), config.http.port()), (1, 1));
    assert_eq!(config.activity, ActivityConfig { partitions: 5, ..ActivityConfig::default() });

    let environment =
        [("TIDINGS_HTTP", "127.0.0.1:2"), ("TIDINGS_ACTIVITY_DLQ_PARTITIONS", "2"), ("HOME", "/")];
    let config = load(file, &environment, UpArgs::default()).unwrap();
    assert_eq!((config.kafka.port(), config.http.port()), (1, 2));
    assert_eq!(
        config.activity,
        ActivityConfig { partitions: 5, dlq_partitions: 2, ..ActivityConfig::default() }
    );

    let flags = UpArgs { http: Some("localhost:3".to_owned()), ..UpArgs::default() };
    let config = load(file, &environment, flags).unwrap();
    assert_eq!((config.kafka.port(), config.http.port()), (1, 3));
    assert_eq!(config.data_dir, PathBuf::from("file"));
}

#[test]
fn broker_settings_keep_their_names_in_every_source() {
    let file =
        "[broker]\nnum.partitions = 2\n\"log.retention.hours\" = 5\nauto.create.topics.enable = false\n";
    let config = load(file, &[], UpArgs::default()).unwrap();
    assert_eq!(
        broker(&config),
        [("auto.create.topics.enable", "false"), ("log.retention.hours", "5"), ("num.partitions", "2")]
    );

    let environment = [("TIDINGS_BROKER_NUM_PARTITIONS", "3"), ("TIDINGS_BROKER_LOG_RETENTION_HOURS", "6")];
    let mut flags = UpArgs::default();
    flags.server.set = vec![("num.partitions".to_owned(), "4".to_owned())];
    flags.server.durability = Some("process".to_owned());
    let config = load(file, &environment, flags).unwrap();
    assert_eq!(
        broker(&config),
        [
            ("auto.create.topics.enable", "false"),
            ("log.retention.hours", "6"),
            ("num.partitions", "4"),
            ("durability", "process")
        ]
    );
    let sources: Vec<&str> = config.broker.iter().map(|setting| setting.source.as_str()).collect();
    assert!(sources[0].ends_with(".toml"), "{sources:?}");
    assert_eq!(sources[1..3], ["environment", "--set"]);
}

#[test]
fn bad_settings_name_their_place() {
    let check = |file: &str, environment: &[(&str, &str)], expect: &str| {
        let error = load(file, environment, UpArgs::default()).unwrap_err();
        assert_eq!(format!("{error:#}"), expect);
    };
    let known = "no such setting; there are `data_dir`, `kafka`, `advertised`, `http`, `host_names`, `bootstrap`, `ready_file`, `durability`, \
                 `insecure`, `log`, `cluster`, `broker`, `activity`";
    check("kafak = 1", &[], &format!("FILE: kafak: {}", known.replace('`', "")));
    check("", &[("TIDINGS_KAFAK", "1")], &format!("TIDINGS_KAFAK: {}", known.replace('`', "")));
    check(
        "[activity]\nsize = 1",
        &[],
        "FILE: activity.size: no such setting; there are topic, store, retention_days, \
         retention_days_per_tenant, partitions, dlq_partitions, ack_timeout_ms, breaker_failures, breaker_open_ms, spool_max_bytes",
    );
    check(
        "",
        &[("TIDINGS_ACTIVITY_PARTITIONS", "many")],
        "TIDINGS_ACTIVITY_PARTITIONS: expected a whole number from -2147483648 to 2147483647, found \"many\"",
    );
    check("a = 1\nkafka = ", &[], "FILE, line 2: is not TOML");
    check("broker = 1", &[], "FILE: broker: expected a table, found signed int `1`");
    check(
        "[broker]\nnum.partitions = [1]",
        &[],
        "FILE: broker.num.partitions: expected a value, found sequence",
    );
    check("[activity]\npartitions = 0", &[], "activity.partitions: expected at least 1, found 0");
    check("[activity]\npartitions = 10001", &[], "activity.partitions: expected at most 10000, found 10001");
    check(
        "[activity]\ndlq_partitions = 10001",
        &[],
        "activity.dlq_partitions: expected at most 10000, found 10001",
    );
    check("[activity]\nack_timeout_ms = 0", &[], "activity.ack_timeout_ms: expected at least 1, found 0");
    check(
        "[activity]\nretention_days = -1",
        &[],
        "FILE: activity.retention_days: expected a whole number from 0 to 4294967295, found -1",
    );
    check("activity = 3", &[], "FILE: activity: expected a table, found 3");
    check(
        "kafka = \"9092\"",
        &[],
        "kafka: expected IP:PORT such as 127.0.0.1:9092, found \"9092\": invalid socket address syntax",
    );
    check(
        "http = \"0.0.0.0:80\"",
        &[],
        "http: 0.0.0.0:80 can be reached from other machines, and nothing asks who is there: add --insecure to allow it",
    );
}

#[test]
fn an_advertised_address_is_a_host_and_a_port() {
    let advertised = |text: &str| {
        load(&format!("advertised = {text:?}"), &[], UpArgs::default()).map(|config| config.advertised)
    };
    assert_eq!(advertised("tidings.lan:9092").unwrap(), Some(("tidings.lan".to_owned(), 9092)));
    assert_eq!(advertised("[fd00::5]:9092").unwrap(), Some(("fd00::5".to_owned(), 9092)));
    for bad in ["tidings.lan", "tidings.lan:0", ":9092", "PLAINTEXT://tidings.lan:9092", "a b:1"] {
        let error = advertised(bad).unwrap_err();
        let expect = format!("advertised: expected HOST:PORT such as tidings.lan:9092, found {bad:?}");
        assert_eq!(error.to_string(), expect);
    }
    for nowhere in ["0.0.0.0:9092", "[::]:9092"] {
        let error = advertised(nowhere).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!(
                "found {nowhere:?}: that is where one listens, and nowhere to connect to"
            ))
        );
    }
}

#[test]
fn a_cluster_has_hosts_and_ports() {
    let bootstrap = |text: &str| {
        load(&format!("bootstrap = {text:?}"), &[], UpArgs::default()).map(|config| config.bootstrap)
    };
    assert_eq!(bootstrap("a:1, [::1]:9092").unwrap().as_deref(), Some("a:1,[::1]:9092"));
    for (wrong, found) in [("foo:bar", "foo:bar"), ("a:1,127.0.0.1", "127.0.0.1"), ("", "")] {
        let expected = "bootstrap: expected HOST:PORT such as 127.0.0.1:9092, or several with commas, found";
        assert_eq!(bootstrap(wrong).unwrap_err().to_string(), format!("{expected} {found:?}"));
        let environment = [("TIDINGS_BOOTSTRAP", wrong)];
        let error = load("", &environment, UpArgs::default()).unwrap_err().to_string();
        assert_eq!(error, format!("{expected} {found:?}"));
    }
}

#[test]
fn one_place_does_not_name_two_brokers() {
    let bootstrap = "bootstrap = 'kafka-1:9092'\n";
    for (key, line) in [
        ("kafka", "kafka = '127.0.0.1:9092'"),
        ("durability", "durability = 'process'"),
        ("broker", "[broker]\nnum.partitions = 4"),
    ] {
        let error = load(&format!("{bootstrap}{line}"), &[], UpArgs::default()).unwrap_err().to_string();
        let expected = "has no effect beside bootstrap, which names another broker: take one of the two out";
        assert_eq!(error, format!("FILE: {key} {expected}"));
        // What stands further up decides.
        let flags = UpArgs { bootstrap: Some("kafka-2:9092".to_owned()), ..UpArgs::default() };
        assert_eq!(load(line, &[], flags).unwrap().bootstrap.as_deref(), Some("kafka-2:9092"));
        load(line, &[("TIDINGS_BOOTSTRAP", "kafka-2:9092")], UpArgs::default()).unwrap();
    }
    let of_container = [("TIDINGS_KAFKA", "127.0.0.1:9092")];
    assert!(load(bootstrap, &of_container, UpArgs::default()).unwrap().bootstrap.is_some());
}

#[test]
fn leaving_loopback_is_possible_on_request() {
    let environment = [("TIDINGS_HOST_NAMES", "tidings.lan, 10.0.0.5")];
    let config = load("http = \"0.0.0.0:80\"\ninsecure = true", &environment, UpArgs::default()).unwrap();
    assert_eq!(config.http.port(), 80);
    assert_eq!(config.host_names, ["tidings.lan", "10.0.0.5"]);
}

#[test]
fn a_host_name_is_a_host_alone() {
    let named = |name: &str| load("", &[], UpArgs { host_names: vec![name.to_owned()], ..UpArgs::default() });
    for right in ["tidings.lan", "tidings.lan.", "tidings_1", "10.0.0.5", "2001:db8::7", "[2001:db8::7]"] {
        assert_eq!(named(right).unwrap().host_names, [right]);
    }
    for wrong in ["tidings.lan:18081", "http://x.lan", "10.0.0.5:80", "x.lan/", "[x.lan]", "*.lan", "a b", ""]
    {
        let expected =
            "host_names: expected a host name or an IP address alone, such as tidings.lan or 10.0.0.5, found";
        assert_eq!(named(wrong).unwrap_err().to_string(), format!("{expected} {wrong:?}"));
    }
}

#[test]
fn a_store_is_named_and_its_password_never_shown() {
    let store = |text: &str| load("", &[("TIDINGS_ACTIVITY_STORE", text)], UpArgs::default());
    assert!(store("sqlite").unwrap().activity.store.postgres().unwrap().is_none());
    let config = store("postgres://ann:s3cret@db.lan/audit").unwrap();
    let postgres = config.activity.store.postgres().unwrap().unwrap();
    assert_eq!(postgres.name(), "postgres at db.lan:5432/audit");
    assert!(!format!("{config:?}").contains("s3cret"));
    let check = |text: &str, expected: &str| {
        let error = format!("{:#}", store(text).unwrap_err());
        assert_eq!(error, format!("activity.store: {expected}"));
    };
    check("s3cret", "expected sqlite or postgres://USER:PASSWORD@HOST:PORT/DATABASE");
    check("mysql://ann:s3cret@db/audit", "expected sqlite or postgres://USER:PASSWORD@HOST:PORT/DATABASE");
    check(
        "postgres://ann:s3cret@db",
        "names no database: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE",
    );
    check(
        "postgres://ann:top@s3cret@db/audit",
        "expected one @, before the host: write one in a password as %40",
    );
}

/// Standard error ends up in the journal, and what is wrong with a password need not be all of it.
#[test]
fn no_error_quotes_a_secret() {
    let check = |file: &str, environment: &[(&str, &str)], expect: &str| {
        let error = load(file, environment, UpArgs::default()).unwrap_err();
        assert_eq!(format!("{error:#}"), expect);
    };
    let not_shown = "expected a string; what was found is not shown";
    for secret in ["20241127", "2024.1127", "true", "[\"s3cret\"]", "{ s3cret = 1 }", "2024-11-27"] {
        let file = format!("[cluster]\npassword = {secret}");
        check(&file, &[], &format!("FILE: cluster.password: {not_shown}"));
        let file = format!("[activity]\nstore = {secret}");
        check(&file, &[], &format!("FILE: activity.store: {not_shown}"));
    }
    check("", &[("TIDINGS_ACTIVITY_STORE", "20241127")], &format!("TIDINGS_ACTIVITY_STORE: {not_shown}"));
    for secret in ["s3cret", "2024s3cret", "'s3cret", "postgres://ann:s3cret@db", "99999999999999999999"] {
        let error = load(&format!("[cluster]\npassword = {secret}"), &[], UpArgs::default()).unwrap_err();
        let error = format!("{error:#}");
        assert!(!error.contains("s3cret") && !error.contains("9999"), "{error}");
    }
}

#[test]
fn a_topic_has_a_legal_name() {
    let topic = |name: &str| load(&format!("[activity]\ntopic = \"{name}\""), &[], UpArgs::default());
    assert_eq!(topic("acme.activities-2_x").unwrap().activity.topic, "acme.activities-2_x");
    for wrong in ["", "..", "a b", "ä", "a/b", &"x".repeat(101)] {
        let error = topic(wrong).unwrap_err().to_string();
        assert!(error.starts_with("activity.topic: "), "{error}");
    }
}

#[test]
fn tenants_have_times_of_their_own() {
    let file = "[activity]\nretention_days = 365\n[activity.retention_days_per_tenant]\nacme = 30\n";
    let activity = load(file, &[], UpArgs::default()).unwrap().activity;
    assert_eq!(activity.retention_days, 365);
    assert_eq!(activity.retention_days_per_tenant, [("acme".to_owned(), 30)].into());
    let environment = [("TIDINGS_ACTIVITY_RETENTION_DAYS_PER_TENANT", "acme=7, A=B Inc=0")];
    let activity = load(file, &environment, UpArgs::default()).unwrap().activity;
    let expected = [("acme".to_owned(), 7), ("A=B Inc".to_owned(), 0)].into();
    assert_eq!(activity.retention_days_per_tenant, expected);
    let environment = [("TIDINGS_ACTIVITY_RETENTION_DAYS_PER_TENANT", "acme")];
    let error = load(file, &environment, UpArgs::default()).unwrap_err();
    let expected = "TIDINGS_ACTIVITY_RETENTION_DAYS_PER_TENANT: expected a table, found \"acme\"";
    assert_eq!(error.to_string(), expected);
}
