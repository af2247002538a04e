//! The schema registry: IDs that are remembered, an outage that stops nobody, a disagreement that does.

use engine::registry::{Known, Registry};
use events::schema::{SCHEMAS, SchemaDef};
use sqlx::PgPool;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{migrated, registry_url, unique};

const ONE_FIELD: &str =
    r#"{"type":"record","name":"Toy","namespace":"orderlog.NS","fields":[{"name":"a","type":"long"}]}"#;
const A_DEFAULT_MORE: &str = r#"{"type":"record","name":"Toy","namespace":"orderlog.NS","fields":[{"name":"a","type":"long"},{"name":"b","type":"long","default":0}]}"#;
/// Fits the second version, not the first: only a check of every stored version finds it.
const NO_DEFAULT: &str = r#"{"type":"record","name":"Toy","namespace":"orderlog.NS","fields":[{"name":"a","type":"long"},{"name":"b","type":"long"}]}"#;

/// A version of a schema that only one test has, under a subject that only it has.
fn toy(namespace: &str, version: u32, text: &str) -> SchemaDef {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    SchemaDef {
        topic: "toy.events",
        full_name: leak(format!("orderlog.{namespace}.Toy")),
        version,
        text: leak(text.replace("NS", namespace)),
    }
}

fn namespace() -> String {
    format!("t{}", unique())
}

fn real() -> Registry {
    Registry::new(registry_url()).unwrap()
}

fn away() -> Registry {
    Registry::new("http://127.0.0.1:1").unwrap()
}

async fn remembered(pool: &PgPool) -> i64 {
    let row: (i64,) = sqlx::query_as("SELECT count(*) FROM schema_ids").fetch_one(pool).await.unwrap();
    row.0
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_remembered_and_an_outage_stops_nobody() {
    let (_database, pool) = migrated().await;
    let findings = real().push().await.unwrap();
    assert!(findings.iter().all(|finding| finding.problem.is_none()), "{findings:?}");
    real().codec(&pool).await.unwrap();
    assert_eq!(usize::try_from(remembered(&pool).await).unwrap(), SCHEMAS.len());
    let codec = away().codec(&pool).await.unwrap();
    for finding in findings {
        assert!(codec.topic_of(finding.id.unwrap()).is_some(), "{}", finding.subject);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_at_the_first_start_is_an_error() {
    let (_database, pool) = migrated().await;
    let error = away().codec(&pool).await.unwrap_err();
    assert!(error.to_string().contains("no schema ID is remembered"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_disagrees_with_what_is_remembered_is_an_error() {
    let (_database, pool) = migrated().await;
    real().push().await.unwrap();
    real().codec(&pool).await.unwrap();
    sqlx::query("UPDATE schema_ids SET id = id + 1000000 WHERE subject = $1")
        .bind(SCHEMAS[3].subject())
        .execute(&pool)
        .await
        .unwrap();
    let error = real().codec(&pool).await.unwrap_err();
    assert!(error.to_string().contains("not the registry of this log"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_may_set_the_level_at_once() {
    let server = MockServer::start().await;
    let lost = r#"{"message":"A rule named 'COMPATIBILITY' already exists.","error_code":0}"#;
    let conflict = ResponseTemplate::new(409).set_body_string(lost);
    Mock::given(any()).respond_with(conflict).up_to_n_times(1).mount(&server).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let registry = Registry::new(server.uri()).unwrap();
    assert_eq!(registry.push_these(&[]).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lost_its_schemas_is_an_error_once_they_are_remembered() {
    let (_database, pool) = migrated().await;
    let empty = MockServer::start().await;
    let none = ResponseTemplate::new(404).set_body_string(r#"{"error_code":40401,"message":"Subject not found."}"#);
    Mock::given(any()).respond_with(none).mount(&empty).await;
    let empty = Registry::new(empty.uri()).unwrap();
    let error = empty.codec(&pool).await.unwrap_err();
    assert!(error.to_string().contains("run `cargo orderctl schemas push`"), "{error:#}");
    real().push().await.unwrap();
    real().codec(&pool).await.unwrap();
    let error = empty.codec(&pool).await.unwrap_err();
    assert!(error.to_string().contains("has lost"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_another_file_counts_only_once_the_registry_agrees() {
    let (_database, pool) = migrated().await;
    real().push().await.unwrap();
    real().codec(&pool).await.unwrap();
    sqlx::query("UPDATE schema_ids SET fingerprint = 'of another text'").execute(&pool).await.unwrap();
    let error = away().codec(&pool).await.unwrap_err();
    assert!(error.to_string().contains("is not the one whose ID is remembered"), "{error:#}");
    real().codec(&pool).await.unwrap();
    away().codec(&pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_id_is_asked_for_each_time() {
    let (registry, namespace) = (real(), namespace());
    let findings = registry.push_these(&[toy(&namespace, 1, ONE_FIELD)]).await.unwrap();
    let id = findings[0].id.unwrap();
    let subject = format!("toy.events-orderlog.{namespace}.Toy");
    assert_eq!(registry.known(id).await, Known::Yes { subject });
    // The next one does not exist until somebody registers it.
    let far = id + 1_000_000;
    assert_eq!(registry.known(far).await, Known::No);
    assert_eq!(registry.known(far).await, Known::No);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_registry_denies_nothing() {
    // A proxy's 404 must not make a record poison.
    let wrong_path = Registry::new(format!("{}/elsewhere", registry_url())).unwrap();
    assert!(matches!(wrong_path.known(1).await, Known::Unavailable(_)));
    assert!(wrong_path.lookup(&SCHEMAS[0]).await.is_err());
    assert!(matches!(away().known(1).await, Known::Unavailable(_)));
    let broken = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(500)).mount(&broken).await;
    assert!(matches!(Registry::new(broken.uri()).unwrap().known(1).await, Known::Unavailable(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn this_builds_schemas_fit_every_stored_version() {
    let registry = real();
    registry.push().await.unwrap();
    let findings = registry.check().await.unwrap();
    assert_eq!(findings.len(), SCHEMAS.len());
    for finding in findings {
        assert_eq!(finding.problem, None, "{}", finding.subject);
        assert!(finding.compared > 0 && finding.id.is_some(), "{finding:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_breaks_an_older_version_is_found_before_and_refused_at_the_push() {
    let (registry, namespace) = (real(), namespace());
    let stored = [toy(&namespace, 1, ONE_FIELD), toy(&namespace, 2, A_DEFAULT_MORE)];
    let pushed = registry.push_these(&stored).await.unwrap();
    assert!(pushed.iter().all(|finding| finding.problem.is_none()), "{pushed:?}");
    let good = registry.check_these(&stored).await.unwrap();
    assert!(good.iter().all(|finding| finding.problem.is_none() && finding.compared == 2), "{good:?}");
    let bad = [toy(&namespace, 3, NO_DEFAULT)];
    let found = registry.check_these(&bad).await.unwrap();
    assert!(found[0].problem.as_deref().unwrap().contains("incompatible with version 1"), "{found:?}");
    let refused = registry.push_these(&bad).await.unwrap();
    assert!(refused[0].id.is_none() && refused[0].problem.is_some(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_with_a_level_of_its_own_proves_nothing() {
    let (registry, namespace) = (real(), namespace());
    let stored = [toy(&namespace, 1, ONE_FIELD)];
    registry.push_these(&stored).await.unwrap();
    let url = format!("{}/config/{}", registry_url(), stored[0].subject());
    let body = r#"{"compatibility":"NONE"}"#;
    let put = reqwest::Client::new().put(url).header("content-type", "application/json").body(body);
    put.send().await.unwrap().error_for_status().unwrap();
    let found = registry.check_these(&stored).await.unwrap();
    assert!(found[0].problem.as_deref().unwrap().contains("level of its own"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_nobody_pushed_is_found() {
    let registry = real();
    registry.push_these(&[]).await.unwrap();
    let found = registry.check_these(&[toy(&namespace(), 1, ONE_FIELD)]).await.unwrap();
    assert_eq!(found[0].problem.as_deref(), Some("not registered"));
}
