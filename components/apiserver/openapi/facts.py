"""Facts about fields that the Python client's models lack: patch strategies and Go types.

They are taken from the types of k8s.io/api and k8s.io/apimachinery, and generate.py writes them
into models.json. Fields are named `Type.field`, with the short name of the type.
"""

from __future__ import annotations

#: (x-kubernetes-patch-strategy, x-kubernetes-patch-merge-key) of a field. A list without a key is
#: merged as a set.
PATCH: dict[str, tuple[str, str]] = {
    "ObjectMeta.finalizers": ("merge", ""),
    "ObjectMeta.ownerReferences": ("merge", "uid"),
    "PodSpec.volumes": ("merge,retainKeys", "name"),
    "PodSpec.initContainers": ("merge", "name"),
    "PodSpec.containers": ("merge", "name"),
    "PodSpec.ephemeralContainers": ("merge", "name"),
    "PodSpec.imagePullSecrets": ("merge", "name"),
    "PodSpec.hostAliases": ("merge", "ip"),
    "PodSpec.topologySpreadConstraints": ("merge", "topologyKey"),
    "PodSpec.schedulingGates": ("merge", "name"),
    "PodSpec.resourceClaims": ("merge,retainKeys", "name"),
    "PodStatus.conditions": ("merge", "type"),
    "PodStatus.podIPs": ("merge", "ip"),
    "PodStatus.hostIPs": ("merge", "ip"),
    "PodStatus.resourceClaimStatuses": ("merge,retainKeys", "name"),
    "Container.ports": ("merge", "containerPort"),
    "Container.env": ("merge", "name"),
    "Container.volumeMounts": ("merge", "mountPath"),
    "Container.volumeDevices": ("merge", "devicePath"),
    "EphemeralContainer.ports": ("merge", "containerPort"),
    "EphemeralContainer.env": ("merge", "name"),
    "EphemeralContainer.volumeMounts": ("merge", "mountPath"),
    "EphemeralContainer.volumeDevices": ("merge", "devicePath"),
    "ContainerStatus.volumeMounts": ("merge", "mountPath"),
    "ContainerStatus.allocatedResourcesStatus": ("merge", "name"),
    "ServiceSpec.ports": ("merge", "port"),
    "ServiceStatus.conditions": ("merge", "type"),
    "ServiceAccount.secrets": ("merge", "name"),
    "NodeSpec.podCIDRs": ("merge", ""),
    "NodeStatus.conditions": ("merge", "type"),
    "NodeStatus.addresses": ("merge", "type"),
    "NamespaceStatus.conditions": ("merge", "type"),
    "PersistentVolumeClaimStatus.conditions": ("merge", "type"),
    "ReplicationControllerStatus.conditions": ("merge", "type"),
    "DeploymentSpec.strategy": ("retainKeys", ""),
    "DeploymentStatus.conditions": ("merge", "type"),
    "ReplicaSetStatus.conditions": ("merge", "type"),
    "DaemonSetStatus.conditions": ("merge", "type"),
    "StatefulSetStatus.conditions": ("merge", "type"),
    "JobStatus.conditions": ("merge", "type"),
    "PodDisruptionBudgetStatus.conditions": ("merge", "type"),
    "ServiceCIDRStatus.conditions": ("merge", "type"),
    "HorizontalPodAutoscalerStatus.conditions": ("merge", "type"),
    "MutatingWebhookConfiguration.webhooks": ("merge", "name"),
    "ValidatingWebhookConfiguration.webhooks": ("merge", "name"),
    "MutatingWebhook.matchConditions": ("merge", "name"),
    "ValidatingWebhook.matchConditions": ("merge", "name"),
}

#: x-kubernetes-list-map-keys for server-side apply, where they differ from the patch merge key.
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "Container.ports": ("containerPort", "protocol"),
    "EphemeralContainer.ports": ("containerPort", "protocol"),
    "ServiceSpec.ports": ("port", "protocol"),
    "PodSpec.topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "CustomResourceDefinitionStatus.conditions": ("type",),
}

INT_OR_STRING = frozenset(
    {
        "HTTPGetAction.port",
        "TCPSocketAction.port",
        "ServicePort.targetPort",
        "NetworkPolicyPort.port",
        "RollingUpdateDeployment.maxSurge",
        "RollingUpdateDeployment.maxUnavailable",
        "RollingUpdateDaemonSet.maxSurge",
        "RollingUpdateDaemonSet.maxUnavailable",
        "RollingUpdateStatefulSetStrategy.maxUnavailable",
        "PodDisruptionBudgetSpec.minAvailable",
        "PodDisruptionBudgetSpec.maxUnavailable",
    }
)

#: Quantities, and maps of quantities (ResourceList), which the client declares as strings.
QUANTITY = frozenset(
    {
        "ResourceFieldSelector.divisor",
        "EmptyDirVolumeSource.sizeLimit",
        "MetricTarget.averageValue",
        "MetricTarget.value",
        "MetricValueStatus.averageValue",
        "MetricValueStatus.value",
        "HPAScalingRules.tolerance",
        "PodStatus.overhead",
    }
)
QUANTITY_MAPS = frozenset(
    {
        "allocatable",
        "allocatedResources",
        "capacity",
        "default",
        "defaultRequest",
        "hard",
        "limits",
        "max",
        "maxLimitRequestRatio",
        "min",
        "overhead",
        "requests",
        "used",
    }
)

MICRO_TIME = frozenset(
    {
        "LeaseSpec.acquireTime",
        "LeaseSpec.renewTime",
        "Event.eventTime",
        "EventSeries.lastObservedTime",
    }
)

#: Fields of type []byte, which JSON has as base64.
BYTES = frozenset({"WebhookClientConfig.caBundle"})
BYTE_MAPS = frozenset({"Secret.data", "ConfigMap.binaryData"})

#: Names of fields that are int64 in every type but those in INT32.
INT64 = frozenset(
    {
        "activeDeadlineSeconds",
        "deletionGracePeriodSeconds",
        "expirationSeconds",
        "fsGroup",
        "generation",
        "gracePeriodSeconds",
        "observedGeneration",
        "remainingItemCount",
        "revision",
        "runAsGroup",
        "runAsUser",
        "startingDeadlineSeconds",
        "stopSignalSeconds",
        "supplementalGroups",
        "terminationGracePeriodSeconds",
        "tolerationSeconds",
        "limitBytes",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minItems",
        "minLength",
        "minProperties",
    }
)
#: The fields of these names that are int32.
INT32 = frozenset({"StatefulSetSpec.observedGeneration"})

#: Strings that have a named type in Go, which type errors mention.
STRING_TYPES: dict[str, str] = {
    "ServiceSpec.type": "ServiceType",
    "ServiceSpec.sessionAffinity": "ServiceAffinity",
    "ServiceSpec.externalTrafficPolicy": "ServiceExternalTrafficPolicy",
    "ServiceSpec.internalTrafficPolicy": "ServiceInternalTrafficPolicy",
    "ServiceSpec.ipFamilyPolicy": "IPFamilyPolicy",
    "ServicePort.protocol": "Protocol",
    "ContainerPort.protocol": "Protocol",
    "EndpointPort.protocol": "Protocol",
    "NetworkPolicyPort.protocol": "Protocol",
    "PodSpec.restartPolicy": "RestartPolicy",
    "PodSpec.dnsPolicy": "DNSPolicy",
    "Container.imagePullPolicy": "PullPolicy",
    "EndpointSlice.addressType": "AddressType",
    "Secret.type": "SecretType",
    "ObjectMeta.uid": "UID",
    "DeploymentStrategy.type": "DeploymentStrategyType",
}
