"""What a method is: the contract, its recipe, its weights, where methods are found and what they cost."""
