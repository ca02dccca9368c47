"""Prints infra/template.yaml as JSON, as written or after the SAM transform."""

import json
import logging
import sys

import yaml
from samtranslator.parser.parser import Parser
from samtranslator.translator.transform import transform


class Loader(yaml.SafeLoader):
    """Reads the short forms of CloudFormation, like !Ref."""


def long_form(loader, tag, node):
    name = tag if tag in ("Ref", "Condition") else "Fn::" + tag
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if tag == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {name: value}


Loader.add_multi_constructor("!", long_form)


class NoManagedPolicies:
    def load(self):
        return {}


def main(how, path):
    logging.disable(logging.CRITICAL)
    with open(path, encoding="utf-8") as file:
        template = yaml.load(file, Loader)
    if how == "translated":
        # After a deployment, the code is in a bucket.
        function = template["Globals"]["Function"]
        if function["CodeUri"].startswith(".."):
            function["CodeUri"] = "s3://packages/jit.zip"
        template = transform(template, {}, NoManagedPolicies(), passthrough_metadata=False)
    json.dump(template, sys.stdout, indent=1)


main(*sys.argv[1:])
