"""What the Python client's models do not say about a field: patch strategies, and which Go type a JSON type stands for.

Facts from the types of k8s.io/api and k8s.io/apimachinery; generate.py writes them into models.json. Fields are named
`Type.field`, by the type's short name.
"""

from __future__ import annotations

#: Field -> (x-kubernetes-patch-strategy, x-kubernetes-patch-merge-key). Without a key the list is merged as a set.
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

#: x-kubernetes-list-map-keys where they are more than the patch merge key (server-side apply).
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

#: Single quantities, and maps of quantities (ResourceList), which the client calls strings.
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

#: []byte, base64 in JSON.
BYTES = frozenset({"WebhookClientConfig.caBundle"})
BYTE_MAPS = frozenset({"Secret.data", "ConfigMap.binaryData"})

#: Field names that are int64 wherever they stand.
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
#: ... but not here.
INT32 = frozenset({"StatefulSetSpec.observedGeneration"})

#: Strings that Go gives a named type, for the text of type errors.
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
