"""What SkyPilot's and Kubeflow's own readers make of a job. Arguments: kind, file. Prints what they saw as JSON; whatever they did not take shows as a difference."""
import json
import sys

import yaml


def skypilot(job):
    from sky import Task

    task = Task.from_yaml_config(job)
    return {"nodes": task.num_nodes, "accelerators": [r.accelerators for r in task.resources], "envs": task.envs, "run": task.run, "setup": task.setup}


def kubernetes(job):
    from kubeflow.training import ApiClient

    class Response:
        data = json.dumps(job)

    client = ApiClient()
    read = client.deserialize(Response, "KubeflowOrgV1PyTorchJob")
    return client.sanitize_for_serialization(read)


def trainjob(job):
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

    return json.loads(TrainerV1alpha1TrainJob.from_dict(job).to_json())


if __name__ == "__main__":
    with open(sys.argv[2]) as file:
        given = yaml.safe_load(file)
    print(json.dumps({"given": given, "read": globals()[sys.argv[1]](given)}))
