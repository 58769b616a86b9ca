// kafkajs as an administrator. Usage: node kafka_admin.mjs HOST:PORT TOPIC; it prints "done".
import kafkajs from "kafkajs";

const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, Kafka, logLevel } = kafkajs;
const { ConfigResourceTypes, ResourcePatternTypes } = kafkajs;

const [, , address, topic] = process.argv;
const kafka = new Kafka({ clientId: "js", brokers: [address], logLevel: logLevel.NOTHING });
const admin = kafka.admin();

function check(condition, what) {
  if (!condition) throw new Error(what);
}

async function main() {
  await admin.connect();
  const configEntries = [{ name: "retention.ms", value: "60000" }];
  const made = await admin.createTopics({ topics: [{ topic, numPartitions: 2, configEntries }] });
  check(made, "the topic is made");
  check(!(await admin.createTopics({ topics: [{ topic }] })), "it is made once");
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
  check(metadata.topics[0].partitions.length === 3, JSON.stringify(metadata));
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ ...resource, configEntries: [{ name: "cleanup.policy", value: "compact" }] }],
  });
  const { resources } = await admin.describeConfigs({
    includeSynonyms: true,
    resources: [{ ...resource, configNames: ["cleanup.policy", "retention.ms"] }],
  });
  const found = resources[0].configEntries.map((each) => each.configValue);
  check(JSON.stringify(found) === '["compact","-1"]', JSON.stringify(resources));
  const acl = {
    resourceType: AclResourceTypes.TOPIC,
    resourceName: topic,
    resourcePatternType: ResourcePatternTypes.LITERAL,
    principal: "User:*",
    host: "*",
    operation: AclOperationTypes.ALL,
    permissionType: AclPermissionTypes.ALLOW,
  };
  await admin.createAcls({ acl: [acl] });
  const acls = await admin.describeAcls(acl);
  check(acls.resources[0].acls[0].principal === "User:*", JSON.stringify(acls));
  const gone = await admin.deleteAcls({ filters: [acl] });
  check(gone.filterResponses[0].matchingAcls.length === 1, JSON.stringify(gone));
  const cluster = await admin.describeCluster();
  check(cluster.brokers.length === 1, JSON.stringify(cluster));
  await admin.deleteTopics({ topics: [topic] });
  check(!(await admin.listTopics()).includes(topic), "the topic is gone");
  await admin.disconnect();
  console.log("done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
