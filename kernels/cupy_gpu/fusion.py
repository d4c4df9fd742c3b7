def together(instructions, held):
    return instructions
