#!/bin/sh
# Kafka's own topic tool, at the place where the public image has it.
exec java -Xmx128m -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' \
    org.apache.kafka.tools.TopicCommand "$@"
